"""Fills the cache: every distinct clip and caption of some pairs through every encoder, once.

The only module that knows both encoders and the cache.  A file is decoded and resampled once for
all encoders, ahead of them, in threads.  A file that cannot be decoded is noted and the others go
on.  Items keep one order, by length, whatever is cached already: a run that was killed and started
again makes the batches that an undisturbed run makes, and so the same bytes.
"""

import logging
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import soundfile
from joblib import Parallel, delayed

from xacle_stack._progress import progress_bar
from xacle_stack._types import FloatArray
from xacle_stack.audio import read_clip
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
    automatic_batch_size,
    check_outputs,
    fingerprints_of,
    resolve_devices,
)
from xacle_stack.errors import AudioError, EncoderError, XacleStackError
from xacle_stack.pairs import Pairs

logger = logging.getLogger(__name__)

# Files that are decoded in one go, ahead of the encoders.
DECODE_WINDOW = 32
# A caption is a fraction of a clip's work.
CAPTIONS_A_CLIP = 4

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
    device: str = "auto",
    batch_size: int | None = None,
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
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or several with commas between; see
        :func:`xacle_stack.encoders.resolve_devices`.  Several devices share the work, one process
        each.
    batch_size : int, optional
        Clips given to an encoder at once, and four times as many captions.  None chooses it by the
        device's memory.  It does not change a vector beyond rounding.
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
        If a device is not there, a checkpoint cannot be loaded, or an encoder breaks its contract;
        the rows of complete batches are kept.
    """
    root = Path(root)
    devices = resolve_devices(device)
    fingerprints = fingerprints_of(encoders)
    splits = list(pairs)
    captions = unique(caption for split in splits for caption in split.captions)
    captions.sort(key=lambda caption: (len(caption), caption))
    clips = unique(path for split in splits for path in split.audio_paths)
    clips.sort(key=_duration)
    shares = [
        _Share(
            root,
            fingerprints,
            clips[worker :: len(devices)],
            captions[worker :: len(devices)],
            of_worker,
            batch_size,
            n_jobs,
            progress and worker == 0,
        )
        for worker, of_worker in enumerate(devices)
    ]
    if len(shares) == 1:
        return shares[0].encode()
    report = ExtractionReport()
    for part in Parallel(n_jobs=len(shares), backend="loky")(
        delayed(share.encode)() for share in shares
    ):
        report.encoded += part.encoded
        report.reused += part.reused
        report.failures |= part.failures
    return report


def _duration(path: Path) -> float:
    """Return seconds as the header promises them, 0 for a file that will fail when decoded."""
    try:
        return float(soundfile.info(path).duration)
    except (soundfile.LibsndfileError, OSError, RuntimeError, ValueError):
        return 0.0


@dataclass(frozen=True)
class _Share:
    """What one device has to encode."""

    root: Path
    fingerprints: Mapping[EncoderChoice, Fingerprint]
    clips: Sequence[Path]
    captions: Sequence[str]
    device: str
    batch_size: int | None
    n_jobs: int
    progress: bool

    def encode(self) -> ExtractionReport:
        report = ExtractionReport()
        loaded = _Loaded(self.device)
        audio_keys = AudioKeys(self.root)
        with ExitStack() as stack:
            stack.callback(audio_keys.save)  # last of all: the first segment makes the cache
            tasks = {
                modality: [
                    _Task(choice, fingerprint, modality, self, loaded, report)
                    for choice, fingerprint in self.fingerprints.items()
                    if choice.info.outputs(modality)
                ]
                for modality in MODALITIES
            }
            for task in (*tasks["text"], *tasks["audio"]):
                stack.enter_context(task.writer)
            _encode_captions(self.captions, tasks["text"], self.progress)
            _encode_clips(self, tasks["audio"], audio_keys, report)
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
        model = choice.unaugmented  # which all views share
        if model not in self._encoders:
            with _anybodys_code(choice.name, "load"):
                self._encoders[model] = model.load(self._device)
        return self._encoders[model].with_view(choice.view)


@contextmanager
def _anybodys_code(name: str, method: str) -> Iterator[None]:
    """Turn what an encoder's own code raises into an EncoderError that says where."""
    try:
        yield
    except XacleStackError:
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise EncoderError(
                f"encoder {name!r}, {method}: the device has too little memory for a batch. Give a "
                "smaller one, for instance --batch-size 4. What was encoded before is in the cache."
            ) from None
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise EncoderError(
            f"encoder {name!r}, {method}: {type(error).__name__}: {error} ({place.filename}, line "
            f"{place.lineno}). What was encoded before is in the cache."
        ) from error


class _Task:
    """One encoder and one modality: knows which rows are missing, batches and writes them."""

    def __init__(
        self,
        choice: EncoderChoice,
        fingerprint: Fingerprint,
        modality: Modality,
        share: _Share,
        loaded: _Loaded,
        report: ExtractionReport,
    ) -> None:
        self.info = choice.info
        self.sample_rate_hz = self.info.sample_rate_hz or 0  # 0 for text, where it means nothing
        self._choice = choice
        self._modality = modality
        self._loaded = loaded
        self._report = report
        n_clips = share.batch_size or automatic_batch_size(share.device, self.info.item_mb)
        self._batch_size = n_clips if modality == "audio" else n_clips * CAPTIONS_A_CLIP
        store = store_id(fingerprint)
        self.writer = StoreWriter(share.root, store, modality, fingerprint.facts)
        self._keys = FeatureCache(share.root).known_keys(store, modality)
        self._waiting: dict[str, object] = {}

    def lacks(self, key: str) -> bool:
        return key not in self._keys and key not in self._waiting

    def count_reused(self, n_items: int) -> None:
        """Note how many of the distinct items were not encoded now."""
        name = self.info.name, self._modality
        self._report.reused[name] = n_items - self._report.encoded[name]

    def add(self, key: str, item: object) -> None:
        """Take an item that is missing; encode when a batch is full."""
        self._waiting[key] = item
        if len(self._waiting) >= self._batch_size:
            self.encode_waiting()

    def encode_waiting(self) -> None:
        """Encode what waits and hand it to the writer."""
        if not self._waiting:
            return
        keys, items = list(self._waiting), list(self._waiting.values())
        encoder = self._loaded.get(self._choice)
        method = encoder.encode_audio if self._modality == "audio" else encoder.encode_text
        with _anybodys_code(self.info.name, method.__name__):
            outputs = method(items)  # type: ignore[arg-type]  # clips or captions, by modality
        self.writer.append(keys, check_outputs(self.info, self._modality, outputs, len(items)))
        self._waiting.clear()
        self._keys.update(keys)
        self._report.encoded[self.info.name, self._modality] += len(items)


def _encode_captions(captions: Sequence[str], tasks: Sequence[_Task], progress: bool) -> None:
    keys = {caption: text_key(caption) for caption in captions}
    for task in tasks:
        todo = [caption for caption in captions if task.lacks(keys[caption])]
        with progress_bar(task.info.name, len(todo), "captions", shown=progress) as bar:
            for caption in todo:
                task.add(keys[caption], caption)
                bar.update()
            task.encode_waiting()
        task.count_reused(len(captions))


def _encode_clips(
    share: _Share, tasks: Sequence[_Task], audio_keys: AudioKeys, report: ExtractionReport
) -> None:
    known = {path: audio_keys.known(path) for path in share.clips}
    todo = [
        path for path, key in known.items() if key is None or any(task.lacks(key) for task in tasks)
    ]
    decoding = set(todo)
    keys = {key for path, key in known.items() if key is not None and path not in decoding}
    with progress_bar("all encoders", len(todo), "clips", shown=share.progress) as bar:
        for decoded in _decode_ahead(todo, tasks, share.n_jobs):
            if decoded.failure:
                report.failures[decoded.path] = decoded.failure
            else:
                audio_keys.remember(decoded.path, decoded.key, decoded.status)
                keys.add(decoded.key)
                for task in tasks:
                    if task.lacks(decoded.key):
                        task.add(decoded.key, decoded.samples[task.sample_rate_hz])
            bar.update()
        for task in tasks:
            task.encode_waiting()
    for task in tasks:
        task.count_reused(len(keys))


@dataclass(frozen=True)
class _Decoded:
    """A file's content key, and its samples at every rate that an encoder still needs."""

    path: Path
    status: FileStatus | None
    key: str = ""
    samples: Mapping[int, FloatArray] = field(default_factory=dict)
    failure: str = ""


def _decode_ahead(paths: Sequence[Path], tasks: Sequence[_Task], n_jobs: int) -> Iterator[_Decoded]:
    """Decode in threads, in order, never more than two windows ahead of what is taken."""
    # joblib's generator alone would decode a whole data set while the encoder is still at the
    # first batch.
    running: Iterable[_Decoded] = ()
    for of_window in _batches(paths, DECODE_WINDOW):
        started = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(
            delayed(_decode)(path, tasks) for path in of_window
        )
        yield from running
        running = started
    yield from running


def _decode(path: Path, tasks: Sequence[_Task]) -> _Decoded:
    status = file_status(path)
    try:
        clip = read_clip(path)
    except AudioError as error:
        return _Decoded(path, status, failure=str(error))
    key = clip.content_key
    # A task that lacks the clip now may get it from a copy before this one is taken, never the
    # other way round.
    rates = {task.sample_rate_hz for task in tasks if task.lacks(key)}
    return _Decoded(path, status, key, {rate: clip.mono(rate) for rate in rates})


def unique(items: Iterable[Item]) -> list[Item]:
    """Return the distinct items in the order in which they first come."""
    return list(dict.fromkeys(items))


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
