"""Fills the cache: encodes every distinct clip and caption once with every encoder.

This is the only module that knows both the encoders and the cache.  A file is decoded and resampled
once for all encoders, ahead of them, in threads.  Files that cannot be decoded, and clips and
captions that an encoder fails on, are reported, and the others go on.  Items are ordered by length,
and an item that fails is replaced in its batch by the next.  So a run that was killed and started
again makes the same batches as an undisturbed run, and the same bytes.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from xacle_stack._progress import progress_bar
from xacle_stack._types import FloatArray
from xacle_stack._workers import GoesOn, StoppedError, run_side_by_side, stop_unless
from xacle_stack.audio import ClipSource, clip_duration, read_clip
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
    BatchQueue,
    Encoder,
    EncoderChoice,
    Fingerprint,
    LoadedEncoders,
    Modality,
    Output,
    read_fingerprints,
    resolve_devices,
)
from xacle_stack.errors import AudioError
from xacle_stack.pairs import Pairs

logger = logging.getLogger(__name__)

# So many files are decoded at a time, ahead of the encoders.
DECODE_WINDOW = 32
# A clip decoded ahead keeps at most so much resampled audio.  A longer clip is decoded again
# in its turn, because its header does not tell its length for sure.
MAX_AHEAD_BYTES = 8 << 20


@dataclass
class ExtractionReport:
    """The result of a run of :func:`extract_embeddings`.

    Attributes
    ----------
    encoded : Counter of (str, str)
        Number of new rows by encoder name and modality.
    reused : Counter of (str, str)
        Number of rows that were already in the cache.
    failures : dict of Path, ClipSource or str to str
        The files that could not be decoded and the clips and captions that an encoder failed on,
        with the reasons.
    """

    encoded: Counter[tuple[str, str]] = field(default_factory=Counter)
    reused: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: dict[Path | ClipSource | str, str] = field(default_factory=dict)


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
    """Encode all clips and captions that the cache lacks.

    Parameters
    ----------
    pairs : iterable of Pairs
        Usually all splits of a data set; shared content is encoded once.
    encoders : sequence of EncoderChoice
    root : path-like
        The folder of all stores.
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or several with commas between; see
        :func:`xacle_stack.encoders.resolve_devices`.  Several devices share the work, with one
        process each.
    batch_size : int, optional
        Clips in a batch; a batch of captions has four times as many.  None chooses by the device's
        memory.  It changes vectors by no more than rounding.
    n_jobs : int, default=1
        Number of threads that decode, as in joblib; -1 for all cores.
    progress : bool, default=False
        Whether to show progress bars.

    Returns
    -------
    report : ExtractionReport
        It lists the clips and captions that could not be used; all others are in the cache.

    Raises
    ------
    CacheError
        If the disk is full.  The rows of complete segments are kept.
    EncoderError
        If a device is missing, a checkpoint cannot be loaded, an encoder fails on any input, or
        the process of a device dies.  The rows of complete batches are kept; a process that dies
        keeps those of complete segments.
    KeyboardInterrupt
        At Ctrl-C.  The rows of complete batches are kept.
    """
    root = Path(root)
    devices = resolve_devices(device)
    fingerprints = read_fingerprints(encoders)
    splits = list(pairs)
    captions = sorted(
        {caption for split in splits for caption in split.captions},
        key=lambda caption: (len(caption), caption),
    )
    # Clips of equal duration stay in the order in which they first come.
    clips = sorted(
        dict.fromkeys(path for split in splits for path in split.audio), key=clip_duration
    )
    shares = [
        _Share(
            root,
            fingerprints,
            clips[worker :: len(devices)],
            captions[worker :: len(devices)],
            worker_device,
            batch_size,
            n_jobs,
            progress and worker == 0,
        )
        for worker, worker_device in enumerate(devices)
    ]
    if len(shares) == 1:
        return shares[0].encode()
    report = ExtractionReport()
    for part in run_side_by_side([share.encode for share in shares], devices):
        report.encoded += part.encoded
        report.reused += part.reused
        report.failures |= part.failures
    return report


@dataclass(frozen=True)
class _Share:
    """The work of one device."""

    root: Path
    fingerprints: Mapping[EncoderChoice, Fingerprint]
    clips: Sequence[Path | ClipSource]
    captions: Sequence[str]
    device: str
    batch_size: int | None
    n_jobs: int
    progress: bool

    def encode(self, goes_on: GoesOn = lambda: True) -> ExtractionReport:
        report = ExtractionReport()
        loaded = LoadedEncoders(list(self.fingerprints), device=self.device)
        audio_keys = AudioKeys(self.root)
        with suppress(StoppedError), ExitStack() as stack:
            stack.callback(audio_keys.save)  # runs last, when segments have created the folder
            tasks = {
                modality: [
                    _Task(choice, fingerprint, modality, self, loaded, report, goes_on)
                    for choice, fingerprint in self.fingerprints.items()
                    if choice.info.outputs(modality)
                ]
                for modality in MODALITIES
            }
            for task in (*tasks["text"], *tasks["audio"]):
                stack.enter_context(task.writer)
            _encode_captions(self.captions, tasks["text"], self.progress, report)
            _encode_clips(self, tasks["audio"], audio_keys, report, goes_on)
        return report


def store_id(fingerprint: Fingerprint) -> StoreId:
    """Return the name of the store that belongs to a fingerprint."""
    return StoreId(fingerprint.encoder, fingerprint.digest)


class _Task:
    """Knows the missing rows of one encoder and modality, and writes them."""

    def __init__(
        self,
        choice: EncoderChoice,
        fingerprint: Fingerprint,
        modality: Modality,
        share: _Share,
        loaded: LoadedEncoders,
        report: ExtractionReport,
        goes_on: GoesOn,
    ) -> None:
        self.info = choice.info
        self.sample_rate_hz = self.info.sample_rate_hz or 0  # 0 for an encoder of text
        self._choice = choice
        self._loaded = loaded
        self._report = report
        self._report_key = self.info.name, modality
        self._goes_on = goes_on
        store = store_id(fingerprint)
        self.writer = StoreWriter(share.root, store, modality, fingerprint.facts)
        self._keys = FeatureCache(share.root).known_keys(store, modality)
        self.queue = BatchQueue(
            self.info, modality, share.device, share.batch_size, self._encoder, self._store
        )

    def lacks(self, key: str) -> bool:
        return key not in self._keys and key not in self.queue

    def count_reused(self, keys: Iterable[str]) -> None:
        """Note how many of the distinct items were in the cache before this run."""
        n_items = len(set(keys) - self.queue.failures.keys())
        self._report.reused[self._report_key] = n_items - self._report.encoded[self._report_key]

    def _encoder(self) -> Encoder:
        stop_unless(self._goes_on)
        return self._loaded.get(self._choice)

    def _store(self, keys: list[str], outputs: Mapping[str, Output]) -> None:
        self.writer.append(keys, outputs)
        self._keys.update(keys)
        self._report.encoded[self._report_key] += len(keys)


def _encode_captions(
    captions: Sequence[str], tasks: Sequence[_Task], progress: bool, report: ExtractionReport
) -> None:
    keys = {caption: text_key(caption) for caption in captions}
    for task in tasks:
        todo = [caption for caption in captions if task.lacks(keys[caption])]
        with progress_bar(task.info.name, len(todo), "captions", shown=progress) as bar:
            for caption in todo:
                task.queue.add(keys[caption], caption)
                bar.update()
            task.queue.finish()
        task.count_reused(keys.values())
        for caption, key in keys.items():
            if key in task.queue.failures:
                report.failures.setdefault(
                    caption, f"caption {caption!r}: {task.queue.failures[key]}"
                )


def _encode_clips(
    share: _Share,
    tasks: Sequence[_Task],
    audio_keys: AudioKeys,
    report: ExtractionReport,
    goes_on: GoesOn,
) -> None:
    known = {path: audio_keys.known(path) for path in share.clips}
    todo = [
        path for path, key in known.items() if key is None or any(task.lacks(key) for task in tasks)
    ]
    decoding = set(todo)
    keys = {path: key for path, key in known.items() if key is not None and path not in decoding}
    with progress_bar("all encoders", len(todo), "clips", shown=share.progress) as bar:
        for decoded in _decode_ahead(todo, tasks, share.n_jobs):
            stop_unless(goes_on)
            if decoded.is_long:
                decoded = _decode(decoded.path, tasks)
            if decoded.failure:
                report.failures[decoded.path] = decoded.failure
            else:
                keys[decoded.path] = audio_keys.remember(decoded.path, decoded.key, decoded.status)
                for task in tasks:
                    if task.lacks(decoded.key):
                        task.queue.add(decoded.key, decoded.samples[task.sample_rate_hz])
            bar.update()
        for task in tasks:
            task.queue.finish()
    for task in tasks:
        task.count_reused(keys.values())
        for path, key in keys.items():
            if key in task.queue.failures:
                report.failures.setdefault(path, f"{path}: {task.queue.failures[key]}")


@dataclass(frozen=True)
class _Decoded:
    """A file's content key, and its samples at all rates that encoders still need."""

    path: Path | ClipSource
    status: FileStatus | None
    key: str = ""
    samples: Mapping[int, FloatArray] = field(default_factory=dict)
    failure: str = ""
    is_long: bool = False  # its samples were not kept


def _decode_ahead(
    paths: Sequence[Path | ClipSource], tasks: Sequence[_Task], n_jobs: int
) -> Iterator[_Decoded]:
    """Decode in threads and in order, at most two windows ahead of the consumer."""
    # joblib's generator alone would decode the whole data set during the first batch.
    running: Iterable[_Decoded] = ()
    for start in range(0, len(paths), DECODE_WINDOW):
        started = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(
            delayed(_decode)(path, tasks, MAX_AHEAD_BYTES)
            for path in paths[start : start + DECODE_WINDOW]
        )
        yield from running
        running = started
    yield from running


def _decode(
    path: Path | ClipSource, tasks: Sequence[_Task], max_bytes: float = math.inf
) -> _Decoded:
    status = file_status(path)
    try:
        clip = read_clip(path)
        key = clip.content_key
        # Until this clip is used, a task may get it from a copy, but no task will newly lack it.
        rates = {task.sample_rate_hz for task in tasks if task.lacks(key)}
        seconds = len(clip.samples) / clip.sample_rate_hz
        if seconds * sum(rates) * np.dtype(np.float32).itemsize > max_bytes:
            return _Decoded(path, status, key, is_long=True)
        return _Decoded(path, status, key, {rate: clip.mono(rate) for rate in rates})
    except AudioError as error:
        return _Decoded(path, status, failure=str(error))
    except (MemoryError, RuntimeError, ValueError) as error:  # the resampler's
        reason = str(error) or type(error).__name__
        return _Decoded(path, status, failure=f"{path}: cannot be resampled ({reason}).")
