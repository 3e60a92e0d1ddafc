"""Finds the stores in a cache's folder."""

import re
from pathlib import Path

from xacle_stack.cache.disk_errors import list_folder
from xacle_stack.cache.schema import FINGERPRINT_FILE, MODALITIES, StoreId, segment_paths

_STORE_FOLDER = re.compile(r".+-[0-9a-f]{16}")


def list_stores(root: Path, encoder: str | None = None) -> list[StoreId]:
    """Return the stores of one encoder, or of all, sorted by name; CacheError if that fails."""
    found = [StoreId.from_folder(path.name) for path in list_folder(root) if _is_store(path)]
    return [store for store in found if encoder in (None, store.encoder)]


def _is_store(folder: Path) -> bool:
    has_name = _STORE_FOLDER.fullmatch(folder.name) is not None
    try:
        if (folder / FINGERPRINT_FILE).is_file():
            return True
        # A store that lost its fingerprint.json is recognised by its segments.
        return has_name and any(segment_paths(folder, modality) for modality in MODALITIES)
    except OSError:  # no permission to look inside; whoever reads from it gets that error
        return has_name
