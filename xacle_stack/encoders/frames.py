"""Pools a model's frames of clips of any length into statistics.

Clips longer than :data:`LONGEST_S` are cut into equal pieces without overlap, and the frames of all
pieces are pooled.  A batch holds no more audio than the same number of clips of :data:`USUAL_S`.
So memory is bounded for any clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.encoders.torch_encoder import Tensor, in_order

T = TypeVar("T")
LONGEST_S = 30
USUAL_S = 10


def standardise(samples: FloatArray) -> FloatArray:
    """Return a clip with mean zero and variance one, as ``Wav2Vec2FeatureExtractor`` does.

    Examples
    --------
    >>> standardise(np.array([1.0, 3.0])).round(3)
    array([-1.,  1.])
    """
    standardised: FloatArray = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    return standardised


def cut(clips: Sequence[FloatArray], longest: int) -> tuple[list[FloatArray], list[int]]:
    """Cut each clip into the fewest equal pieces of at most `longest` samples.

    Returns the pieces of the first clip, then of the second, and so on, and the number of pieces of
    each clip.  Lengths within a clip differ by at most one sample.

    Examples
    --------
    >>> [len(piece) for piece in cut([np.zeros(5), np.zeros(2)], 3)[0]]
    [3, 2, 2]
    """
    parts = [np.array_split(clip, math.ceil(len(clip) / longest)) for clip in clips]
    return [piece for pieces in parts for piece in pieces], [len(pieces) for pieces in parts]


def group_by_clip(found: Mapping[int, T], counts: Sequence[int]) -> list[list[T]]:
    """Return what was found of the pieces that :func:`cut` returned, clip by clip."""
    pieces = (found[number] for number in range(sum(counts)))
    return [list(islice(pieces, count)) for count in counts]


def max_pieces(n_clips: int, n_samples: int, sample_rate_hz: int) -> int:
    """Return how many pieces of `n_samples` hold as much audio as `n_clips` usual clips.

    Examples
    --------
    >>> max_pieces(8, 30 * 16_000, 16_000)
    2
    """
    return max(1, n_clips * USUAL_S * sample_rate_hz // n_samples)


def pad(pieces: Sequence[FloatArray], n_samples: int = 0) -> tuple[FloatArray, IntArray]:
    """Stack pieces as float32, padded with zeros to the longest of them and to `n_samples`.

    Returns the stack, of shape (n_pieces, n_longest), and the lengths before padding.
    """
    lengths = np.array([len(piece) for piece in pieces])
    stacked = np.zeros((len(pieces), max(n_samples, *lengths)), dtype=np.float32)
    for row, piece in zip(stacked, pieces, strict=True):
        row[: len(piece)] = piece
    return stacked, lengths


def count_convolved(n_samples: Any, kernels: Sequence[int], strides: Sequence[int]) -> Any:
    """Return the number of frames after a stack of convolutions without padding."""
    for kernel, stride in zip(kernels, strides, strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Return the smallest number of samples from which such a stack makes one frame.

    Examples
    --------
    >>> receptive_field([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2])
    400
    """
    n_samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        n_samples = (n_samples - 1) * stride + kernel
    return n_samples


def masked_statistics(frames: Tensor, n_frames: Tensor) -> Tensor:
    """Return mean, standard deviation and maximum over the first frames of each row.

    The frames have the shape (n_pieces, n_longest, n_dims); of each row the first `n_frames`, at
    least one, are valid.  The statistics have the shape (n_pieces, 3 * n_dims), float32.  The
    deviation is the population's, so that a single frame gives 0.
    """
    import torch

    frames = frames.float()
    padding = torch.arange(frames.shape[1], device=frames.device) >= n_frames[:, None]
    padding, count = padding[..., None], n_frames[:, None].float()
    mean = frames.masked_fill(padding, 0).sum(dim=1) / count
    deviations = (frames - mean[:, None]).masked_fill(padding, 0)
    deviation = (deviations.square().sum(dim=1) / count).sqrt()
    return torch.cat([mean, deviation, frames.masked_fill(padding, -torch.inf).amax(dim=1)], dim=1)


def merge_statistics(statistics: Tensor, n_frames: Tensor, counts: Sequence[int]) -> Tensor:
    """Combine what :func:`masked_statistics` returns for the pieces of each clip.

    `counts` holds the number of pieces of each clip; the result has a row for each clip.
    """
    import torch

    if max(counts) == 1:
        return statistics
    merged = []
    for rows, n in zip(statistics.split(counts), n_frames.split(counts), strict=True):
        mean, deviation, highest = rows.chunk(3, dim=1)
        weight = (n / n.sum())[:, None]
        centre = (weight * mean).sum(dim=0)
        variance = (weight * (deviation.square() + (mean - centre).square())).sum(dim=0)
        merged.append(torch.cat([centre, variance.sqrt(), highest.amax(dim=0)]))
    return torch.stack(merged)


def pool_frames(
    clips: Sequence[FloatArray],
    sample_rate_hz: int,
    get_frames: Callable[[Sequence[FloatArray]], tuple[Tensor, Tensor]],
    spread: float = 1.25,
) -> Tensor:
    """Return mean, deviation and maximum over each clip's frames, shape (n_clips, 3 * n_dims).

    `get_frames` takes pieces and returns their frames and the numbers of valid frames, as
    :func:`masked_statistics` takes them.  `spread` is the largest ratio of the longest to the
    shortest piece in a batch.
    """
    pieces, counts = cut(clips, LONGEST_S * sample_rate_hz)
    statistics, n_frames = [], []
    for batch in _batches(pieces, len(clips), sample_rate_hz, spread):
        frames, n = get_frames([pieces[index] for index in batch])
        statistics.append((batch, masked_statistics(frames, n)))
        n_frames.append((batch, n))
    return merge_statistics(in_order(statistics), in_order(n_frames), counts)


def _batches(
    pieces: Sequence[FloatArray], n_clips: int, sample_rate_hz: int, spread: float
) -> list[IntArray]:
    """Return the indices of the pieces, sorted by length, in batches of similar lengths."""
    lengths = np.array([len(piece) for piece in pieces])
    order = np.argsort(lengths, kind="stable")
    starts = [0]
    for position, length in enumerate(lengths[order]):
        n_in_batch = position - starts[-1]
        is_full = n_in_batch >= max_pieces(n_clips, length, sample_rate_hz)
        if n_in_batch and (is_full or length > spread * lengths[order[starts[-1]]]):
            starts.append(position)
    return np.split(order, starts[1:])
