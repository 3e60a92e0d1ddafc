"""Whitened features: a pair's two vectors compared along a space's own axes, all equally long.

The vectors of a space vary in a few directions far more than in the others.  A cosine, and an
absolute difference in each of the encoder's arbitrary coordinates, see little else.  Here clips and
captions are centred each by their own mean, turned to the axes of their common covariance, and
scaled to the same variance along each.

Source: Su et al. 2021, "Whitening Sentence Representations for Better Semantics and Faster
Retrieval" (arXiv 2103.15316), for one kind of vectors.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from xacle_stack._types import FloatArray

# The variance that each axis is given beside its own, in units of the mean one: what is left of an
# axis along which the training vectors hardly vary is noise.
_SHRINKAGE = 0.01
# Of unit vectors in float32 that are all the same, only rounding varies.
_LEAST_VARIANCE = 1e-12
# The cosine is taken over so many leading axes, doubled up to all of them.
_FEWEST_AXES = 8


def whitening(
    pairs: Iterable[tuple[FloatArray, FloatArray]], n_axes: int
) -> tuple[FloatArray, FloatArray]:
    """Return the means of clips and captions, and the axes that whiten both.

    Parameters
    ----------
    pairs : iterable of (ndarray, ndarray)
        Blocks of rows: the unit vectors of clips and of captions, (n_block_rows, n_dims) each.
    n_axes : int
        How many axes of largest variance to keep, at most n_dims.

    Returns
    -------
    means : ndarray of shape (2, n_dims)
    axes : ndarray of shape (n_dims, n_axes)
        Divided by the standard deviations along them.  The largest entry of each is positive.
    """
    n_rows, sums, squares = 0, np.zeros(()), np.zeros(())
    for sides in pairs:
        n_rows += len(sides[0])
        sums = sums + np.stack([side.sum(axis=0, dtype=np.float64) for side in sides])
        doubles = (side.astype(np.float64) for side in sides)
        squares = squares + sum(side.T @ side for side in doubles)
    means = sums / n_rows
    variances, directions = np.linalg.eigh((squares / n_rows - means.T @ means) / 2)
    variances = np.maximum(variances, 0)
    floor = max(_SHRINKAGE * variances.mean(), _LEAST_VARIANCE)
    axes = (directions / np.sqrt(variances + floor))[:, : -n_axes - 1 : -1]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    return means, axes * np.sign(largest)


def whitened_widths(n_axes: int) -> dict[str, int]:
    """Return the blocks of :func:`whitened_features` with their numbers of columns.

    Examples
    --------
    >>> whitened_widths(128)
    {'whitened difference': 128, 'whitened cosines': 5}
    """
    return {"whitened difference": n_axes, "whitened cosines": len(_numbers_of_axes(n_axes))}


def whitened_features(audio: FloatArray, text: FloatArray) -> FloatArray:
    """Return ``[|a/‖a‖ − b/‖b‖|, cos(a_k, b_k) …]`` for vectors a and b along whitened axes.

    Parameters
    ----------
    audio, text : ndarray of shape (n_pairs, n_axes)
        Coordinates along axes of descending variance.

    Returns
    -------
    features : ndarray of shape (n_pairs, n_axes + n_cosines)
        The absolute differences, then the cosines over the first 8, 16, 32 … and all k axes.  A
        vector of length zero has differences and cosines of 0 beside another such.

    Examples
    --------
    >>> whitened_features(np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]]))
    array([[0.2 , 0.2 , 0.96]])
    """
    products = [
        np.cumsum(one * other, axis=1)
        for one, other in ((audio, text), (audio, audio), (text, text))
    ]
    lengths = [np.sqrt(squares[:, -1:]) for squares in products[1:]]
    a, b = (
        side / np.where(length > 0, length, 1)
        for side, length in zip((audio, text), lengths, strict=True)
    )
    last = np.array(_numbers_of_axes(audio.shape[1])) - 1
    dots, *squares = (sums[:, last] for sums in products)
    norms = np.sqrt(squares[0] * squares[1])
    cosines = np.clip(dots / np.where(norms > 0, norms, 1), -1.0, 1.0)
    return np.hstack([np.abs(a - b), cosines])


def _numbers_of_axes(n_axes: int) -> list[int]:
    """Return over how many axes cosines are taken."""
    numbers = []
    n_leading = _FEWEST_AXES
    while n_leading < n_axes:
        numbers.append(n_leading)
        n_leading *= 2
    return [*numbers, n_axes]
