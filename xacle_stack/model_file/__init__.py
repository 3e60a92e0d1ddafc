"""Fitted models as files that execute nothing."""

from xacle_stack.model_file.persist import MAX_MODEL_BYTES, load_card, load_model, save_model

__all__ = ["MAX_MODEL_BYTES", "load_card", "load_model", "save_model"]
