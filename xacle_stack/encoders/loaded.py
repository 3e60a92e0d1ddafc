"""Encoders that stay loaded, and encode clips and captions in memory without a cache."""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Number
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from xacle_stack._types import FloatArray
from xacle_stack.audio import (
    Clip,
    ClipSource,
    clip_duration,
    clip_from_samples,
    mono_at_rates,
    read_clip,
)
from xacle_stack.encoders.base import Encoder, Modality, Output
from xacle_stack.encoders.batches import BatchQueue, encoder_errors, one_at_a_time
from xacle_stack.encoders.device import resolve_devices
from xacle_stack.encoders.registry import EncoderChoice
from xacle_stack.errors import AudioError, EncoderError, one_or_all
from xacle_stack.pairs import Pairs

# By the encoder's name and the output's.
Embeddings = dict[tuple[str, str], FloatArray | list[FloatArray]]


class LoadedEncoders:
    """Encodes clips and captions in memory.

    Each encoder is loaded when it is first needed and stays loaded.  The embeddings equal those
    that :meth:`FeatureCache.load` returns for files of the same samples; only the last digits of an
    encoder may differ that computes batches of another composition with other rounding.  Several
    threads may use one object: they decode side by side, and encode one after the other.

    Parameters
    ----------
    choices : sequence of EncoderChoice
    device : str, default="auto"
        As :func:`resolve_devices` takes it.  Of several devices the first is used.
    batch_size : int, optional
        Clips given to an encoder at once, and four times as many captions.  None chooses by the
        device's memory.

    Examples
    --------
    >>> encoders = LoadedEncoders([EncoderChoice("mini-mel")], device="cpu")
    >>> encoders.encode_captions(["A dog barks"])["mini-mel", "embedding"].shape
    (1, 64)
    >>> hum = np.sin(np.arange(16_000))
    >>> encoders.encode_clips([hum], sample_rate_hz=16_000)["mini-mel", "embedding"].shape
    (1, 64)
    """

    def __init__(
        self,
        choices: Sequence[EncoderChoice],
        *,
        device: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        self.choices = tuple(choices)
        self._device = resolve_devices(device)[0]
        self._batch_size = batch_size
        self._encoders: dict[EncoderChoice, Encoder] = {}

    def get(self, choice: EncoderChoice) -> Encoder:
        """Return an encoder, which is loaded at the first call."""
        model = choice.unaugmented  # all views share one model
        with one_at_a_time():
            if model not in self._encoders:
                with encoder_errors(choice.name, "load"):
                    self._encoders[model] = model.load(self._device)
        return self._encoders[model].with_view(choice.view)

    def encode_clips(
        self,
        clips: Sequence[Path | str | ClipSource | ArrayLike],
        sample_rate_hz: int | Sequence[int | None] | None = None,
    ) -> Embeddings:
        """Encode clips with every encoder that takes audio.

        Parameters
        ----------
        clips : sequence of path-like, ClipSource, array-like or tensor
            Audio files, or samples as :func:`~xacle_stack.audio.clip_from_samples` takes them.
            A path or object that stands there several times is encoded once.
        sample_rate_hz : int, or sequence of int of length n_clips, optional
            The sampling rate of the samples.  Files have their own.

        Returns
        -------
        embeddings : dict of (str, str) to ndarray of shape (n_clips, n_dims)
            By encoder and output, for example ``("mini-mel", "embedding")``; float32.  An output
            that is a sequence is a list of arrays of shape (n_frames, n_dims), in the type that
            the encoder declares.

        Raises
        ------
        AudioError
            With every clip that cannot be used.
        EncoderError
            If an encoder cannot be loaded, or fails; the message names the clips.
        """
        contents, firsts, failures = _contents(clips, sample_rate_hz)
        encodings = self._encodings("audio")
        # The order of extract_embeddings, so that the batches are the same.
        rates = {encoding.sample_rate_hz for encoding in encodings}
        for index in sorted(contents, key=lambda index: _duration_s(contents[index])):
            content = contents[index]
            try:
                clip = content if isinstance(content, Clip) else read_clip(content)
                samples = mono_at_rates(clip, rates, _name(clips[index], index))
            except AudioError as error:
                failures[index] = str(error)
                continue
            for encoding in encodings:
                encoding.queue.add(str(index), samples[encoding.sample_rate_hz])
        if failures:
            reasons = [failures[index] for index in sorted(failures)]
            raise AudioError(one_or_all("clips cannot be used", reasons))
        names = {str(index): _name(clips[index], index) for index in contents}
        return _joined(encodings, [str(first) for first in firsts], names)

    def encode_captions(self, captions: Sequence[str]) -> Embeddings:
        """Encode captions with every encoder that takes text.

        Parameters
        ----------
        captions : sequence of str

        Returns
        -------
        embeddings : dict of (str, str) to ndarray of shape (n_captions, n_dims)
            As `encode_clips` returns them.

        Raises
        ------
        PairsError
            If a caption is not a text, or is blank.
        EncoderError
            If an encoder cannot be loaded, or fails; the message names the captions.
        """
        ids = tuple(map(str, range(len(captions))))
        captions = Pairs("captions", ids, (), tuple(captions)).captions
        encodings = self._encodings("text")
        distinct = sorted(set(captions), key=lambda caption: (len(caption), caption))
        for encoding in encodings:
            for caption in distinct:
                encoding.queue.add(caption, caption)
        names = {caption: f"caption {caption!r}" for caption in distinct}
        return _joined(encodings, captions, names)

    def _encodings(self, modality: Modality) -> list[_Encoding]:
        choices = [choice for choice in self.choices if choice.info.outputs(modality)]
        counts = Counter(choice.info.name for choice in choices)
        if repeated := [name for name, n in counts.items() if n > 1]:
            raise EncoderError(
                f"encoders that are named more than once: {', '.join(repeated)}. Name each once: "
                "its embeddings are returned under its name."
            )
        return [_Encoding(self, choice, modality) for choice in choices]


class _Encoding:
    """Collects the outputs of one encoder by the items' keys."""

    def __init__(self, loaded: LoadedEncoders, choice: EncoderChoice, modality: Modality) -> None:
        self._info = choice.info
        self.sample_rate_hz = self._info.sample_rate_hz or 0  # 0 for an encoder of text
        get_encoder, settings = partial(loaded.get, choice), (loaded._device, loaded._batch_size)
        self.queue = BatchQueue(self._info, modality, *settings, get_encoder, self._store)
        self._outputs = self._info.outputs(modality)
        self._rows: dict[str, dict[str, FloatArray]] = {name: {} for name in self._outputs}

    def _store(self, keys: list[str], outputs: Mapping[str, Output]) -> None:
        for name, rows in outputs.items():
            self._rows[name].update(zip(keys, rows, strict=True))

    def embeddings(self, keys: Sequence[str], names: Mapping[str, str]) -> Embeddings:
        """Encode what still waits and return the rows of all items."""
        self.queue.finish()
        if self.queue.failures:
            reasons = [f"{names[key]}: {why}" for key, why in self.queue.failures.items()]
            raise EncoderError(one_or_all("items cannot be encoded", reasons))
        found: Embeddings = {}
        for name, n_dims in self._outputs.items():
            rows = [self._rows[name][key] for key in keys]
            is_sequence = name in self._info.sequences
            found[self._info.name, name] = (
                rows if is_sequence else np.array(rows, dtype=np.float32).reshape(-1, n_dims)
            )
        return found


def _joined(
    encodings: Sequence[_Encoding], keys: Sequence[str], names: Mapping[str, str]
) -> Embeddings:
    joined: Embeddings = {}
    for encoding in encodings:
        joined |= encoding.embeddings(keys, names)
    return joined


def _contents(
    clips: Sequence[Path | str | ClipSource | ArrayLike],
    sample_rate_hz: int | Sequence[int | None] | None,
) -> tuple[dict[int, Path | ClipSource | Clip], list[int], dict[int, str]]:
    """Return the usable clips, the first of each clip, and why others cannot be used.

    The usable ones are those that differ, by index, files still unread.  The first of a clip is the
    index of the first that is the same path or object.
    """
    if isinstance(clips, str | bytes | os.PathLike) or any(map(_is_number, clips)):
        raise AudioError(
            "clips: expected a sequence of clips, each the path of an audio file or an array of "
            f"samples, got {reprlib.repr(clips)}. Put a single clip into a list: [clip]."
        )
    rates = (
        sample_rate_hz
        if isinstance(sample_rate_hz, Sequence | np.ndarray)
        else [sample_rate_hz] * len(clips)
    )
    if len(rates) != len(clips):
        raise AudioError(
            f"sample_rate_hz: {len(rates)} rates for {len(clips)} clips; expected one whole number "
            "for all clips, or one for each."
        )
    listed = list(clips)  # a row of an array is an object only as long as somebody holds it
    first_of: dict[object, int] = {}
    firsts: list[int] = []
    contents: dict[int, Path | ClipSource | Clip] = {}
    failures: dict[int, str] = {}
    for index, (clip, rate) in enumerate(zip(listed, rates, strict=True)):
        same = os.fspath(clip) if isinstance(clip, str | os.PathLike) else id(clip)
        firsts.append(first_of.setdefault((same, repr(rate)), index))
        if firsts[index] < index:
            continue
        if isinstance(clip, str | os.PathLike):
            contents[index] = Path(clip)
            continue
        if isinstance(clip, ClipSource):
            contents[index] = clip
            continue
        try:
            contents[index] = clip_from_samples(clip, rate, _name(clip, index))
        except AudioError as error:
            failures[index] = str(error)
    return contents, firsts, failures


def _is_number(clip: object) -> bool:
    return clip is None or isinstance(clip, Number) or getattr(clip, "ndim", 1) == 0


def _duration_s(content: Path | ClipSource | Clip) -> float:
    return content.duration_s if isinstance(content, Clip) else clip_duration(content)


def _name(clip: object, index: int) -> str:
    return str(clip) if isinstance(clip, str | os.PathLike | ClipSource) else f"clip {index}"
