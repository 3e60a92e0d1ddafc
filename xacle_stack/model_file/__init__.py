"""Fitted models as files that execute nothing."""

from xacle_stack.model_file.card import MODEL_SUFFIXES, load_card
from xacle_stack.model_file.files import (
    MAX_MODEL_BYTES,
    check_can_be_saved,
    load_model,
    save_model,
    write_model,
)
from xacle_stack.model_file.model_card import card_markdown, card_sections, write_markdown

__all__ = [
    "MAX_MODEL_BYTES",
    "MODEL_SUFFIXES",
    "card_markdown",
    "card_sections",
    "check_can_be_saved",
    "load_card",
    "load_model",
    "save_model",
    "write_markdown",
    "write_model",
]
