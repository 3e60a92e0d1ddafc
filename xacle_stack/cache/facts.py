"""The file that records what a store's fingerprint was made from, for people to read."""

import json
from collections.abc import Mapping
from pathlib import Path

from xacle_stack._files import read_small_file, write_atomically
from xacle_stack.cache.disk_errors import disk_errors
from xacle_stack.cache.schema import FINGERPRINT_FILE
from xacle_stack.errors import CacheError

_MAX_BYTES = 1 << 20
_REMEDY = (
    "The rows are unharmed: run `xacle-stack features` with the recipe that made this store, which "
    "writes the file again"
)


def read_facts(folder: Path) -> dict[str, object]:
    """Return what the fingerprint of the store in a folder was made from.

    CacheError if the file is missing, cannot be read or holds something else.
    """
    path = folder / FINGERPRINT_FILE
    try:
        with disk_errors(path, "read"):
            facts = json.loads(read_small_file(path, _MAX_BYTES))
    except CacheError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise CacheError(f"{path}: missing. {_REMEDY}.") from None
        raise
    except (ValueError, RecursionError) as error:
        raise CacheError(f"{path}: cannot be used ({error}). {_REMEDY}.") from error
    if not isinstance(facts, dict):
        raise CacheError(f"{path}: expected a JSON object, got {type(facts).__name__}. {_REMEDY}.")
    return facts


def facts_fault(folder: Path) -> str | None:
    """Return what is wrong with the record of the store in a folder; None if it is sound."""
    try:
        read_facts(folder)
    except CacheError as error:
        return str(error)
    return None


def write_facts(folder: Path, encoder: str, facts: Mapping[str, object]) -> None:
    """Write the record, unless there is already a sound one; OSError if it cannot be written."""
    if facts_fault(folder) is not None:
        content = json.dumps({"encoder": encoder, **facts}, indent=2, sort_keys=True) + "\n"
        path = folder / FINGERPRINT_FILE
        if path.is_symlink():  # its target may lie outside the store
            path.unlink()
        write_atomically(path, content.encode())
