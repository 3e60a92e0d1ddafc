"""Fills the cache: encodes every distinct clip and caption once with every encoder.

This is the only module that knows both the encoders and the cache.  A file is decoded and resampled
once for all encoders, ahead of them, in threads.  Files that cannot be decoded, and clips and
captions that an encoder fails on, are reported, and the others go on.

Items are ordered by length and cut into shards of whole batches, and an item that fails is replaced
in its batch by the next of its shard.  So a run that was killed and started again, and one on
several devices or on a cluster, makes the batches of an undisturbed run on one device, and the same
bytes.  A worker of a cluster gets paths and content keys, and writes its vectors into the store.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from xacle_stack._progress import progress_bar
from xacle_stack._rows import row_blocks, row_shards
from xacle_stack._tasks import run_tasks, runs_elsewhere
from xacle_stack._types import FloatArray
from xacle_stack._workers import GoesOn, StoppedError, run_side_by_side, stop_unless
from xacle_stack.audio import MAX_SAMPLES, ClipSource, clip_duration, mono_at_rates, read_clip
from xacle_stack.cache import (
    AudioKeys,
    FileStatus,
    KnownKeys,
    StoreId,
    StoreWriter,
    file_status,
    text_key,
)
from xacle_stack.cache.segment_file import SegmentGoneError
from xacle_stack.encoders import (
    BatchQueue,
    Encoder,
    EncoderChoice,
    Fingerprint,
    LoadedEncoders,
    Modality,
    Output,
    batch_multiple,
    read_fingerprints,
    resolve_devices,
)
from xacle_stack.errors import AudioError, ClipTooLongError
from xacle_stack.pairs import Pairs

logger = logging.getLogger(__name__)

# So many files are decoded at a time, ahead of the encoders.
DECODE_WINDOW = 32
# A clip decoded ahead takes at most so many samples, 64 MiB, and keeps at most so much resampled
# audio.  A longer clip is decoded again in its turn, when no other is, because its header does not
# tell its length for sure.
MAX_AHEAD_SAMPLES = 1 << 24
MAX_AHEAD_BYTES = 8 << 20
# Captions come first, because they take little time.
# A shard has at most about so many items: seconds on a GPU, minutes on a processor.
_ORDER: Sequence[Modality] = ("text", "audio")
MAX_SHARD_ITEMS: Mapping[Modality, int] = {"audio": 1024, "text": 4096}


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
    n_jobs: int | None = None,
    progress: bool = False,
) -> ExtractionReport:
    """Encode all clips and captions that the cache lacks.

    Within ``joblib.parallel_config(backend="dask")``, or ``"ray"`` or ``"loky"``, the workers of
    that backend encode.  They must see the store and the audio files under the same paths.

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
        process each.  On a cluster each worker takes the first that it has.
    batch_size : int, optional
        Clips in a batch; a batch of captions has four times as many.  None chooses by the device's
        memory.  It changes vectors by no more than rounding.
    n_jobs : int, optional
        Number of threads that decode, as in joblib; -1 for all cores.  With a backend of processes
        it is the number of these, and each decodes in as many threads as OMP_NUM_THREADS says.
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
    WorkerError
        If a worker of a cluster dies and its work is not done by another.
    KeyboardInterrupt
        At Ctrl-C.  The rows of complete batches are kept; of a cluster, those of complete segments.
    """
    if is_elsewhere := runs_elsewhere(n_jobs):
        Path(root).mkdir(parents=True, exist_ok=True)  # all workers must see it
    devices = (device,) if is_elsewhere else resolve_devices(device)
    work = Work(Path(root), read_fingerprints(encoders), devices[0], batch_size)
    items = _Items(pairs, work.root, n_jobs)
    shards = work.shards(items, effective_n_jobs(n_jobs) if is_elsewhere else len(devices))
    done = _Done()
    try:
        if is_elsewhere:
            _encode_elsewhere(work, shards, items, done, n_jobs, progress)
        elif len(devices) > 1:
            shares = [
                partial(
                    _encode_share,
                    Work(work.root, work.fingerprints, each, batch_size),
                    shards[worker :: len(devices)],
                    n_jobs,
                    progress and worker == 0,
                )
                for worker, each in enumerate(devices)
            ]
            for part in run_side_by_side(shares, devices):
                done.add(part)
        else:
            remember = items.audio_keys.remember
            work.encode(shards, done, n_jobs=n_jobs, progress=progress, remember=remember)
    finally:
        items.audio_keys.save()
    return _report(work, items, done)


def store_id(fingerprint: Fingerprint) -> StoreId:
    """Return the name of the store that belongs to a fingerprint."""
    return StoreId(fingerprint.encoder, fingerprint.digest)


class _Items:
    """The clips and captions of pairs, each once, in the order in which they are encoded."""

    def __init__(self, pairs: Iterable[Pairs], root: Path, n_jobs: int | None) -> None:
        splits = list(pairs)
        self.audio_keys = AudioKeys(root)
        captions = sorted(
            {caption for split in splits for caption in split.captions},
            key=lambda caption: (len(caption), caption),
        )
        clips = [*dict.fromkeys(path for split in splits for path in split.audio)]
        runs = [[*map(_absolute, clips[rows])] for rows in row_blocks(0, len(clips))]
        names = [f"reading headers from {run[0]} on" for run in runs]
        some_file = next((one for one in clips if isinstance(one, Path) and one.is_file()), None)
        durations = chain.from_iterable(
            run_tasks(
                _durations,
                runs,
                names=names,
                n_jobs=n_jobs,
                folder=root,
                files=[] if some_file is None else [some_file],
            )
        )
        # Clips of equal duration stay in the order in which they first come.
        order = sorted(zip(durations, range(len(clips)), strict=True))
        self.of: dict[Modality, list[Any]] = {
            "text": captions,
            "audio": [clips[number] for _, number in order],
        }
        self.keys: dict[Modality, list[str | None]] = {
            "text": [text_key(caption) for caption in captions],
            "audio": [self.audio_keys.known(clip) for clip in self.of["audio"]],
        }


def _durations(clips: Sequence[Path | ClipSource]) -> list[float]:
    return [clip_duration(clip) for clip in clips]


def _absolute(item: Any) -> Any:
    """Return a path for processes that may work in another folder."""
    return item.absolute() if isinstance(item, Path) else item


@dataclass(frozen=True)
class Shard:
    """Clips or captions that follow one another, with the content keys that are known."""

    modality: Modality
    start: int
    items: Sequence[Any]
    keys: Sequence[str | None]
    n_lacking: int

    @property
    def name(self) -> str:
        """What errors call it."""
        what = "clips" if self.modality == "audio" else "captions"
        return f"{what} {self.start}-{self.start + len(self.items) - 1}, from {self.items[0]} on"


@dataclass
class _Done:
    """What became of shards; items go by their modality and number."""

    encoded: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed_keys: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    failures: dict[tuple[Modality, int], str] = field(default_factory=dict)
    decoded: dict[int, tuple[str, FileStatus | None]] = field(default_factory=dict)

    def add(self, other: _Done) -> None:
        self.encoded += other.encoded
        for name, keys in other.failed_keys.items():
            self.failed_keys.setdefault(name, set()).update(keys)
        self.failures |= other.failures
        self.decoded |= other.decoded


class Work:
    """What all shards share.  A process that unpickles it loads the encoders once."""

    def __init__(
        self,
        root: Path,
        fingerprints: Mapping[EncoderChoice, Fingerprint],
        device: str,
        batch_size: int | None,
    ) -> None:
        self.root, self.fingerprints = root, fingerprints
        self.device, self.batch_size = device, batch_size
        self.known = {
            (choice, modality): KnownKeys(root, store_id(fingerprint), modality)
            for modality in _ORDER
            for choice, fingerprint in fingerprints.items()
            if choice.info.outputs(modality)
        }
        self._lock = threading.Lock()
        self._loaded: LoadedEncoders | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        fingerprints = {choice.absolute: each for choice, each in self.fingerprints.items()}
        return Work, (self.root.absolute(), fingerprints, self.device, self.batch_size)

    @property
    def loaded(self) -> LoadedEncoders:
        """The encoders, on the first device that this process has."""
        with self._lock:  # a worker may have several threads
            if self._loaded is None:
                self._loaded = LoadedEncoders([*self.fingerprints], device=self.device)
            return self._loaded

    def refresh(self, modality: Modality) -> None:
        """Learn what other processes have written since."""
        with self._lock:
            for (_, each), keys in self.known.items():
                if each == modality:
                    # Many workers change a store all the time.  What is missed is encoded twice.
                    with suppress(SegmentGoneError):
                        keys.refresh()

    def shards(self, items: _Items, n_workers: int) -> list[Shard]:
        """Return the shards that lack anything."""
        for known_keys in self.known.values():
            known_keys.refresh()
        shards = []
        for modality in _ORDER:
            known = [keys for (_, each), keys in self.known.items() if each == modality]
            of, keys = items.of[modality], items.keys[modality]
            whole = batch_multiple(modality, self.device, self.batch_size)
            for rows in row_shards(
                len(of), n_workers, at_most=MAX_SHARD_ITEMS[modality], whole=whole
            ):
                n_lacking = sum(
                    key is None or any(key not in each for each in known) for key in keys[rows]
                )
                if known and n_lacking:
                    part = [*map(_absolute, of[rows])] if n_workers > 1 else of[rows]
                    shards.append(Shard(modality, rows.start, part, keys[rows], n_lacking))
        return shards

    def encode(
        self,
        shards: Sequence[Shard],
        done: _Done,
        *,
        n_jobs: int | None,
        progress: bool = False,
        remember: Callable[[Any, str, FileStatus | None], object] = lambda *_: None,
        goes_on: GoesOn = lambda: True,
    ) -> None:
        """Encode shards one after the other, and note what became of them."""
        device = resolve_devices(self.device)[0]
        with suppress(StoppedError), ExitStack() as stack:
            tasks = [
                _Task(self, choice, modality, device, done, goes_on)
                for choice, modality in self.known
            ]
            for task in tasks:
                stack.enter_context(task.writer)
            for modality, update, some in _with_bars(shards, progress):
                takers = [task for task in tasks if task.modality == modality]
                for shard in some:
                    if modality == "text":
                        keys = _encode_captions(shard, takers, update)
                    else:
                        keys = _encode_clips(shard, takers, update, done, n_jobs, remember, goes_on)
                    for task in takers:
                        task.queue.finish()
                        task.note_failures(shard, keys)


def _with_bars(
    shards: Sequence[Shard], progress: bool
) -> Iterator[tuple[Modality, Callable[..., Any], list[Shard]]]:
    """Yield the shards of captions, then those of clips, with the update of their progress bar."""
    for modality in _ORDER:
        some = [shard for shard in shards if shard.modality == modality]
        unit = "clips" if modality == "audio" else "captions"
        n_lacking = sum(shard.n_lacking for shard in some)
        with progress_bar("all encoders", n_lacking, unit, shown=progress) as bar:
            yield modality, bar.update, some


def _encode_share(
    work: Work, shards: Sequence[Shard], n_jobs: int | None, progress: bool, goes_on: GoesOn
) -> _Done:
    """Encode the share of a device, in a process of its own."""
    done, audio_keys = _Done(), AudioKeys(work.root)
    try:
        work.encode(
            shards,
            done,
            n_jobs=n_jobs,
            progress=progress,
            remember=audio_keys.remember,
            goes_on=goes_on,
        )
    finally:
        audio_keys.save()
    return done


def _encode_elsewhere(
    work: Work,
    shards: Sequence[Shard],
    items: _Items,
    done: _Done,
    n_jobs: int | None,
    progress: bool,
) -> None:
    """Let workers of joblib's backend encode, and remember what they decoded."""
    tasks = run_tasks(
        partial(encode_shard, work),
        shards,
        names=[shard.name for shard in shards],
        n_jobs=n_jobs,
        kept=f"All that is in the store {work.root} is kept: run again to go on from there.",
        folder=work.root,
    )
    with closing(tasks) as results:
        for _, update, some in _with_bars(shards, progress):
            for shard in some:
                part = next(results)
                for number, (key, status) in part.decoded.items():
                    items.audio_keys.remember(items.of["audio"][number], key, status)
                done.add(part)
                update(shard.n_lacking)
        next(results, None)  # there is none, and the workers are left in peace


def encode_shard(work: Work, shard: Shard) -> _Done:
    """Encode one shard in a worker of joblib's backend, and return what became of it."""
    # Whoever starts workers says by this variable how many cores a task may use: Dask, Ray, loky.
    n_threads = os.environ.get("OMP_NUM_THREADS", "")
    done = _Done()
    work.refresh(shard.modality)  # perhaps a worker died that had begun with this shard
    work.encode([shard], done, n_jobs=int(n_threads) if n_threads.isdecimal() else 1)
    return done


def _report(work: Work, items: _Items, done: _Done) -> ExtractionReport:
    report = ExtractionReport(done.encoded)
    for number, (key, _) in done.decoded.items():
        items.keys["audio"][number] = key
    for choice, modality in work.known:
        name = choice.info.name, modality
        keys = {key for key in items.keys[modality] if key is not None}
        n_items = len(keys - done.failed_keys.get(name, set()))
        report.reused[name] = max(0, n_items - report.encoded[name])
    for (modality, number), reason in sorted(done.failures.items()):
        report.failures[items.of[modality][number]] = reason
    return report


class _Task:
    """Knows the missing rows of one encoder and modality, and writes them."""

    def __init__(
        self,
        work: Work,
        choice: EncoderChoice,
        modality: Modality,
        device: str,
        done: _Done,
        goes_on: GoesOn,
    ) -> None:
        self.modality = modality
        self.sample_rate_hz = choice.info.sample_rate_hz or 0  # 0 for an encoder of text
        self._choice = choice
        self._work = work
        self._done = done
        self._name = choice.info.name, modality
        self._goes_on = goes_on
        fingerprint = work.fingerprints[choice]
        self.writer = StoreWriter(work.root, store_id(fingerprint), modality, fingerprint.facts)
        self._keys = work.known[choice, modality]
        self.queue = BatchQueue(
            choice.info, modality, device, work.batch_size, self._encoder, self._store
        )

    def lacks(self, key: str) -> bool:
        return key not in self._keys and key not in self.queue

    def note_failures(self, shard: Shard, keys: Mapping[int, str]) -> None:
        """Note the items of a shard that the encoder failed on."""
        for number, key in keys.items():
            if key in self.queue.failures:
                self._done.failed_keys.setdefault(self._name, set()).add(key)
                item = shard.items[number]
                what = item if self.modality == "audio" else f"caption {item!r}"
                reason = f"{what}: {self.queue.failures[key]}"
                self._done.failures.setdefault((self.modality, shard.start + number), reason)

    def _encoder(self) -> Encoder:
        stop_unless(self._goes_on)
        return self._work.loaded.get(self._choice)

    def _store(self, keys: list[str], outputs: Mapping[str, Output]) -> None:
        self.writer.append(keys, outputs)
        self._keys.update(keys)
        self._done.encoded[self._name] += len(keys)


def _encode_captions(
    shard: Shard, tasks: Sequence[_Task], update: Callable[[], object]
) -> dict[int, str]:
    """Encode captions; return the key of each by its number in the shard."""
    keys = {number: key for number, key in enumerate(shard.keys) if key is not None}
    for number, key in keys.items():
        takers = [task for task in tasks if task.lacks(key)]
        for task in takers:
            task.queue.add(key, shard.items[number])
        if takers:
            update()
    return keys


def _encode_clips(
    shard: Shard,
    tasks: Sequence[_Task],
    update: Callable[[], object],
    done: _Done,
    n_jobs: int | None,
    remember: Callable[[Any, str, FileStatus | None], object],
    goes_on: GoesOn,
) -> dict[int, str]:
    """Decode and encode clips; return the key of each usable one by its number in the shard."""
    keys = {number: key for number, key in enumerate(shard.keys) if key is not None}
    todo = [
        number
        for number in range(len(shard.items))
        if number not in keys or any(task.lacks(keys[number]) for task in tasks)
    ]
    clips = [shard.items[number] for number in todo]
    for number, decoded in zip(todo, _decode_ahead(clips, tasks, n_jobs), strict=True):
        stop_unless(goes_on)
        if decoded.is_long:
            decoded = _decode(decoded.path, tasks)
        if decoded.failure:
            done.failures["audio", shard.start + number] = decoded.failure
            keys.pop(number, None)
        else:
            keys[number] = decoded.key
            done.decoded[shard.start + number] = decoded.key, decoded.status
            remember(decoded.path, decoded.key, decoded.status)
            for task in tasks:
                if task.lacks(decoded.key):
                    task.queue.add(decoded.key, decoded.samples[task.sample_rate_hz])
        update()
    return keys


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
    paths: Sequence[Path | ClipSource], tasks: Sequence[_Task], n_jobs: int | None
) -> Iterator[_Decoded]:
    """Decode in threads and in order, at most two windows ahead of the consumer."""
    # joblib's generator alone would decode the whole data set during the first batch.
    running: Iterable[_Decoded] = ()
    for start in range(0, len(paths), DECODE_WINDOW):
        started = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(
            delayed(_decode)(path, tasks, MAX_AHEAD_SAMPLES, MAX_AHEAD_BYTES)
            for path in paths[start : start + DECODE_WINDOW]
        )
        yield from running
        running = started
    yield from running


def _decode(
    path: Path | ClipSource,
    tasks: Sequence[_Task],
    max_samples: int = MAX_SAMPLES,
    max_bytes: float = math.inf,
) -> _Decoded:
    status = file_status(path)
    try:
        clip = read_clip(path, max_samples=max_samples)
        key = clip.content_key
        # Until this clip is used, a task may get it from a copy, but no task will newly lack it.
        rates = {task.sample_rate_hz for task in tasks if task.lacks(key)}
        seconds = len(clip.samples) / clip.sample_rate_hz
        if seconds * sum(rates) * np.dtype(np.float32).itemsize > max_bytes:
            return _Decoded(path, status, key, is_long=True)
        return _Decoded(path, status, key, mono_at_rates(clip, rates, path))
    except ClipTooLongError as error:
        is_limit_ours = max_samples < MAX_SAMPLES
        return _Decoded(path, status, failure=str(error), is_long=is_limit_ours)
    except AudioError as error:
        return _Decoded(path, status, failure=str(error))
