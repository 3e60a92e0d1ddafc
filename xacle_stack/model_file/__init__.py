"""Fitted models as files that execute nothing."""

from xacle_stack.model_file.card import MODEL_SUFFIXES, load_card
from xacle_stack.model_file.files import (
    MAX_MODEL_BYTES,
    check_can_be_saved,
    load_model,
    save_model,
)

__all__ = [
    "MAX_MODEL_BYTES",
    "MODEL_SUFFIXES",
    "check_can_be_saved",
    "load_card",
    "load_model",
    "save_model",
]
