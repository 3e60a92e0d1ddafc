"""Fills the cache: every distinct clip and caption of some pairs through every encoder, once.

The only module that knows both encoders and the cache.  A file is decoded once for all encoders,
ahead of them, in threads.  A file that cannot be decoded is noted and the others go on.
"""

import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from joblib import Parallel, delayed

from xacle_stack._progress import progress_bar
from xacle_stack._types import FloatArray
from xacle_stack.audio import Clip, read_clip
from xacle_stack.cache import (
    AudioKeys,
    FeatureCache,
    FileStatus,
    StoreId,
    StoreWriter,
    file_status,
    text_key,
)
from xacle_stack.encoders import (
    MODALITIES,
    Encoder,
    EncoderChoice,
    Fingerprint,
    Modality,
    check_outputs,
)
from xacle_stack.errors import AudioError, EncoderError, XacleStackError
from xacle_stack.pairs import Pairs

Item = TypeVar("Item")


@dataclass
class ExtractionReport:
    """What one run of :func:`extract_embeddings` did.

    Attributes
    ----------
    encoded : Counter of (str, str)
        Rows added, by encoder name and modality.
    reused : Counter of (str, str)
        Rows that were in the cache already.
    failures : dict of Path to str
        The files that could not be used, and why.
    """

    encoded: Counter[tuple[str, str]] = field(default_factory=Counter)
    reused: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: dict[Path, str] = field(default_factory=dict)


def extract_embeddings(
    pairs: Iterable[Pairs],
    encoders: Sequence[EncoderChoice],
    root: Path | str,
    *,
    device: str = "cpu",
    batch_size: int = 32,
    n_jobs: int = 1,
    progress: bool = False,
) -> ExtractionReport:
    """Encode what the cache does not hold yet.

    Parameters
    ----------
    pairs : iterable of Pairs
        Usually all splits of a data set; content that they share is encoded once.
    encoders : sequence of EncoderChoice
    root : path-like
        The folder of all stores.
    device : str, default="cpu"
        Passed to every encoder's ``load``.
    batch_size : int, default=32
        Items given to an encoder at once; never changes a vector.
    n_jobs : int, default=1
        Threads that decode ahead; joblib's convention, -1 for all cores.
    progress : bool, default=False
        Show bars with items per second and time left.

    Returns
    -------
    report : ExtractionReport
        With the files that could not be decoded; everything else is in the cache.

    Raises
    ------
    CacheError
        If the disk is full; the rows of complete segments are kept.
    EncoderError
        If an encoder breaks its contract; the rows of complete batches are kept.
    """
    root = Path(root)
    splits = list(pairs)
    clips = unique(path for split in splits for path in split.audio_paths)
    captions = unique(caption for split in splits for caption in split.captions)
    report = ExtractionReport()
    loaded = _Loaded(device)
    fingerprints = {choice: choice.fingerprint() for choice in encoders}
    audio_keys = AudioKeys(root)
    with ExitStack() as stack:
        stack.callback(audio_keys.save)  # last of all: the first segment makes the cache
        tasks = {
            modality: [
                _Task(choice, fingerprint, modality, root, loaded, report)
                for choice, fingerprint in fingerprints.items()
                if choice.encoder.info.outputs(modality)
            ]
            for modality in MODALITIES
        }
        for task in (*tasks["text"], *tasks["audio"]):
            stack.enter_context(task.writer)
        _encode_captions(captions, tasks["text"], batch_size, progress)
        _encode_clips(clips, tasks["audio"], audio_keys, report, batch_size, n_jobs, progress)
    return report


def store_id(fingerprint: Fingerprint) -> StoreId:
    """Return the name of the store that belongs to a fingerprint."""
    return StoreId(fingerprint.encoder, fingerprint.digest)


class _Loaded:
    """Loads each encoder when its first missing row turns up, and only then."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._encoders: dict[EncoderChoice, Encoder] = {}

    def get(self, choice: EncoderChoice) -> Encoder:
        if choice not in self._encoders:
            with _anybodys_code(choice.name, "load"):
                self._encoders[choice] = choice.encoder.load(choice.checkpoint, self._device)
        return self._encoders[choice]


@contextmanager
def _anybodys_code(name: str, method: str) -> Iterator[None]:
    """Turn what an encoder's own code raises into an EncoderError that says where."""
    try:
        yield
    except XacleStackError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise EncoderError(
            f"encoder {name!r}, {method}: {type(error).__name__}: {error} ({place.filename}, line "
            f"{place.lineno}). What was encoded before is in the cache."
        ) from error


class _Task:
    """One encoder and one modality: knows which rows are missing and writes them."""

    def __init__(
        self,
        choice: EncoderChoice,
        fingerprint: Fingerprint,
        modality: Modality,
        root: Path,
        loaded: _Loaded,
        report: ExtractionReport,
    ) -> None:
        self.info = choice.encoder.info
        self.sample_rate_hz = self.info.sample_rate_hz or 0  # 0 for text, where it means nothing
        self._choice = choice
        self._modality = modality
        self._loaded = loaded
        self._report = report
        store = store_id(fingerprint)
        self.writer = StoreWriter(root, store, modality, fingerprint.facts)
        self._keys = FeatureCache(root).known_keys(store, modality)

    def lacks(self, key: str) -> bool:
        return key not in self._keys

    def count_reused(self, n_items: int) -> None:
        """Note how many of the distinct items were not encoded now."""
        name = self.info.name, self._modality
        self._report.reused[name] = n_items - self._report.encoded[name]

    def encode(self, keys: Sequence[str], items: Sequence[object]) -> None:
        """Encode items that are missing and hand them to the writer."""
        encoder = self._loaded.get(self._choice)
        method = encoder.encode_audio if self._modality == "audio" else encoder.encode_text
        with _anybodys_code(self.info.name, method.__name__):
            outputs = method(items)  # type: ignore[arg-type]  # clips or captions, by modality
        self.writer.append(keys, check_outputs(self.info, self._modality, outputs, len(items)))
        self._keys.update(keys)
        self._report.encoded[self.info.name, self._modality] += len(items)


def _encode_captions(
    captions: Sequence[str], tasks: Sequence[_Task], batch_size: int, progress: bool
) -> None:
    keys = {caption: text_key(caption) for caption in captions}
    for task in tasks:
        # By length, so that a batch holds little padding.
        todo = sorted((c for c in captions if task.lacks(keys[c])), key=lambda c: (len(c), c))
        with progress_bar(task.info.name, len(todo), "captions", shown=progress) as bar:
            for batch in _batches(todo, batch_size):
                task.encode([keys[caption] for caption in batch], batch)
                bar.update(len(batch))
        task.count_reused(len(captions))


def _encode_clips(
    paths: Sequence[Path],
    tasks: Sequence[_Task],
    audio_keys: AudioKeys,
    report: ExtractionReport,
    batch_size: int,
    n_jobs: int,
    progress: bool,
) -> None:
    known = {path: audio_keys.known(path) for path in paths}
    todo = unique(
        path for path, key in known.items() if key is None or any(task.lacks(key) for task in tasks)
    )
    decoding = set(todo)
    keys = {key for path, key in known.items() if key is not None and path not in decoding}
    with progress_bar("all encoders", len(todo), "clips", shown=progress) as bar:
        for batch in _batches(_decode_ahead(todo, batch_size, n_jobs), batch_size):
            clips: dict[str, Clip] = {}
            for path, status, clip in batch:
                if isinstance(clip, AudioError):
                    report.failures[path] = str(clip)
                else:
                    clips.setdefault(audio_keys.remember(path, clip, status), clip)
            keys.update(clips)
            _encode_batch(clips, tasks)
            bar.update(len(batch))
    for task in tasks:
        task.count_reused(len(keys))


def _encode_batch(clips: Mapping[str, Clip], tasks: Sequence[_Task]) -> None:
    by_rate: dict[int, dict[str, FloatArray]] = {}
    for task in tasks:
        samples = by_rate.setdefault(task.sample_rate_hz, {})
        keys = [key for key in clips if task.lacks(key)]
        for key in keys:
            if key not in samples:
                samples[key] = clips[key].mono(task.sample_rate_hz)
        if keys:
            task.encode(keys, [samples[key] for key in keys])


_Decoded = tuple[Path, FileStatus | None, Clip | AudioError]


def _decode_ahead(paths: Sequence[Path], window: int, n_jobs: int) -> Iterator[_Decoded]:
    """Decode in threads, in order, never more than two windows ahead of what is taken."""
    # joblib's generator alone would decode a whole data set while the encoder is still at the
    # first batch.
    running: Iterable[_Decoded] = ()
    for of_window in _batches(paths, window):
        started = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(
            delayed(_decode)(path) for path in of_window
        )
        yield from running
        running = started
    yield from running


def _decode(path: Path) -> _Decoded:
    before = file_status(path)
    try:
        return path, before, read_clip(path)
    except AudioError as error:
        return path, before, error


def unique(items: Iterable[Item]) -> list[Item]:
    """Return the distinct items in the order in which they first come."""
    return list(dict.fromkeys(items))


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
