"""Frozen encoders: what turns clips and captions into vectors."""

from xacle_stack.encoders.base import (
    EMBEDDING,
    MODALITIES,
    WORDS,
    Encoder,
    EncoderInfo,
    Fingerprint,
    Modality,
    Precision,
    view_name,
)
from xacle_stack.encoders.batches import anybodys_code, encode_batch, failing_items
from xacle_stack.encoders.device import automatic_batch_size, resolve_devices
from xacle_stack.encoders.outputs import check_outputs
from xacle_stack.encoders.registry import (
    EncoderChoice,
    encoder_names,
    fingerprints_of,
    get_encoder,
)

__all__ = [
    "EMBEDDING",
    "MODALITIES",
    "WORDS",
    "Encoder",
    "EncoderChoice",
    "EncoderInfo",
    "Fingerprint",
    "Modality",
    "Precision",
    "anybodys_code",
    "automatic_batch_size",
    "check_outputs",
    "encode_batch",
    "encoder_names",
    "failing_items",
    "fingerprints_of",
    "get_encoder",
    "resolve_devices",
    "view_name",
]
