"""Embeddings on disk: content-addressed, immutable, checksummed."""

from xacle_stack.cache.cached_pairs import CachedPairs, CachedSequences
from xacle_stack.cache.keys import AudioKeys, file_status
from xacle_stack.cache.known_keys import KnownKeys
from xacle_stack.cache.memo import FileStatus
from xacle_stack.cache.reader import FeatureCache, StoreSummary
from xacle_stack.cache.schema import StoreId, text_key
from xacle_stack.cache.writer import StoreWriter

__all__ = [
    "AudioKeys",
    "CachedPairs",
    "CachedSequences",
    "FeatureCache",
    "FileStatus",
    "KnownKeys",
    "StoreId",
    "StoreSummary",
    "StoreWriter",
    "file_status",
    "text_key",
]
