"""Frozen encoders: what turns clips and captions into vectors."""

from xacle_stack.encoders.base import (
    EMBEDDING,
    MODALITIES,
    Encoder,
    EncoderInfo,
    Fingerprint,
    Modality,
    check_outputs,
)
from xacle_stack.encoders.registry import EncoderChoice, encoder_names, get_encoder

__all__ = [
    "EMBEDDING",
    "MODALITIES",
    "Encoder",
    "EncoderChoice",
    "EncoderInfo",
    "Fingerprint",
    "Modality",
    "check_outputs",
    "encoder_names",
    "get_encoder",
]
