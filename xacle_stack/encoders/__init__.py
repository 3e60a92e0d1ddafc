"""Frozen encoders: what turns clips and captions into vectors."""

from xacle_stack.encoders.base import (
    EMBEDDING,
    MODALITIES,
    WORDS,
    Encoder,
    EncoderInfo,
    Fingerprint,
    Modality,
    Output,
    Precision,
    view_name,
)
from xacle_stack.encoders.batches import BatchQueue, batch_multiple
from xacle_stack.encoders.device import resolve_devices
from xacle_stack.encoders.loaded import Embeddings, LoadedEncoders
from xacle_stack.encoders.outputs import check_outputs
from xacle_stack.encoders.registry import (
    EncoderChoice,
    encoder_names,
    get_encoder,
    read_fingerprints,
)
from xacle_stack.encoders.sentence_folder import TEXT_PREFIX, split_text_output

__all__ = [
    "EMBEDDING",
    "MODALITIES",
    "TEXT_PREFIX",
    "WORDS",
    "BatchQueue",
    "Embeddings",
    "Encoder",
    "EncoderChoice",
    "EncoderInfo",
    "Fingerprint",
    "LoadedEncoders",
    "Modality",
    "Output",
    "Precision",
    "batch_multiple",
    "check_outputs",
    "encoder_names",
    "get_encoder",
    "read_fingerprints",
    "resolve_devices",
    "split_text_output",
    "view_name",
]
