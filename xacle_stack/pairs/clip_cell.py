"""Makes a clip of what stands in a table's cell: a path, samples, a decoder, a file's bytes."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xacle_stack.audio import Clip, ClipSource, SampleSource, clip_from_samples, read_clip
from xacle_stack.errors import AudioError
from xacle_stack.pairs.row_source import StoredCell


def path_in(cell: object) -> str | None:
    """Return the path that a cell holds, if it holds one and no sound."""
    if isinstance(cell, Mapping) and cell.get("array") is None and cell.get("bytes") is None:
        cell = cell.get("path")
    return os.fspath(cell) if isinstance(cell, str | os.PathLike) else None


def sound_in(cell: object, name: str, sample_rate_hz: object) -> ClipSource:
    """Return the sound that a cell holds.

    Parameters
    ----------
    cell : ClipSource, array, tensor, dict, bytes, decoder or StoredCell
        A dict has ``array`` and ``sampling_rate``, or ``bytes``, as in a Hugging Face ``Dataset``.
        A decoder has ``get_all_samples``, as torchcodec's.
    name : str
        What messages call the sound.
    sample_rate_hz : int or None
        The rate of an array that does not bring its own.

    Raises
    ------
    AudioError
        If an array comes without its rate, or its samples cannot be used.
    """
    if isinstance(cell, ClipSource):
        return cell
    if isinstance(cell, StoredCell | bytes) or _is_encoded(cell) or _is_decoder(cell):
        return CellClip(cell, name, sample_rate_hz)
    samples, rate = _samples_and_rate(cell, sample_rate_hz)
    _check_has_rate(name, rate)
    return SampleSource(samples, rate, name)


class CellClip(ClipSource):
    """A sound in a cell that is decoded when it is asked for."""

    def __init__(self, cell: object, name: str, sample_rate_hz: object = None) -> None:
        super().__init__(name)
        self._cell = cell
        self._sample_rate_hz = sample_rate_hz

    def read(self) -> Clip:
        """Return the clip."""
        cell: Any = self._cell
        try:
            if isinstance(cell, StoredCell):
                cell = cell.read()
            if _is_decoder(cell):
                decoded = cell.get_all_samples()
                return clip_from_samples(decoded.data, decoded.sample_rate, self.name)
        # A decoder, and what reads a data set, raise errors of their own.
        except (OSError, RuntimeError, ValueError, ImportError, LookupError) as error:
            if isinstance(error, AudioError):
                raise
            raise AudioError(f"{self.name}: cannot be read ({error}).") from None
        if isinstance(cell, ClipSource):
            return cell.read()
        if isinstance(cell, bytes):
            return _decode(cell, self.name)
        if _is_encoded(cell):
            return _decode(cell["bytes"], self.name)
        if (path := path_in(cell)) is not None:
            return read_clip(path)
        samples, rate = _samples_and_rate(cell, self._sample_rate_hz)
        _check_has_rate(self.name, rate)
        return clip_from_samples(samples, rate, self.name)

    def duration_s(self) -> float:
        """Return 0: the duration is not known before the sound is decoded."""
        return 0.0


def _is_encoded(cell: object) -> bool:
    return isinstance(cell, Mapping) and isinstance(cell.get("bytes"), bytes)


def _is_decoder(cell: object) -> bool:
    return hasattr(cell, "get_all_samples")


def _samples_and_rate(cell: Any, sample_rate_hz: object) -> tuple[Any, Any]:
    if not isinstance(cell, Mapping):
        return cell, sample_rate_hz
    rate = cell.get("sampling_rate", sample_rate_hz)
    return cell.get("array"), rate


def _check_has_rate(name: str, rate: object) -> None:
    if rate is None:
        raise AudioError(
            f"{name}: samples without their sampling rate. Add a column 'sampling_rate', give "
            "{'array': …, 'sampling_rate': …} in the cell, or sample_rate_hz=… for all."
        )


def _decode(content: bytes, name: str) -> Clip:
    """Decode the bytes of an audio file as the file itself would be."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"
        path.write_bytes(content)
        try:
            return read_clip(path)
        except AudioError as error:
            raise AudioError(str(error).replace(str(path), name)) from None
