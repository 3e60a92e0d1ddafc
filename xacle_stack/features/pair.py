"""Pair features: what one contrastive space says of a clip and its caption.

Conventions: embeddings are normalised to unit length here, so a space that does not normalise
(MS-CLAP) needs no special case.  Every row of a result depends on the same row of the arguments
only.

Source: Li, Li and Shinozaki 2026 (the CLAP stack of the XACLE challenge).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from xacle_stack._types import FloatArray
from xacle_stack.errors import FeatureError


def normalised_pairs(
    audio: ArrayLike, text: ArrayLike, *, first_row: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Check the embeddings of one space and scale every row to unit length.

    Parameters
    ----------
    audio, text : array-like of shape (n_pairs, n_dims)
        Row ``i`` of both belongs to pair ``i``.
    first_row : int, default=0
        What the first row is called in messages, where these are a block of more rows.

    Returns
    -------
    audio, text : ndarray of shape (n_pairs, n_dims)
        float32 for float32 or shorter input, else float64.

    Raises
    ------
    FeatureError
        If the shapes differ, or a row is zero or not finite.
    """
    arrays = []
    for name, values in (("audio", audio), ("text", text)):
        array = np.asarray(values)
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise FeatureError(
                f"{name} embeddings: expected numbers of shape (n_pairs, n_dims), got shape "
                f"{array.shape} and type {array.dtype}."
            )
        # Rows one after the other: in another order, sums over a row depend on how many rows
        # there are, in their last digits.
        array = array.astype(np.result_type(array.dtype, np.float32), order="C", copy=False)
        # The largest value first: squares of large or tiny values would leave float32's range.
        largest = np.abs(array).max(axis=1, initial=0.0, keepdims=True)
        bad = np.flatnonzero(~np.isfinite(largest) | (largest == 0))
        if len(bad):
            raise FeatureError(
                f"{name} embeddings: {len(bad)} of {len(array)} rows are zero or not finite, the "
                f"first is row {first_row + bad[0]}. A zero vector has no direction; encode "
                "the item again."
            )
        array = array / largest
        array /= np.linalg.norm(array, axis=1, keepdims=True)
        arrays.append(array)
    if arrays[0].shape != arrays[1].shape:
        raise FeatureError(
            f"audio embeddings of shape {arrays[0].shape} but text embeddings of shape "
            f"{arrays[1].shape}: both must come from one space and the same pairs."
        )
    return arrays[0], arrays[1]


def cosine_similarity(audio: ArrayLike, text: ArrayLike) -> FloatArray:
    """Return the cosine between each clip and its own caption, ``aᵀb`` for unit a and b.

    Parameters
    ----------
    audio, text : array-like of shape (n_pairs, n_dims)

    Returns
    -------
    similarity : ndarray of shape (n_pairs,)
        In [-1, 1].

    Raises
    ------
    FeatureError
        If the shapes differ, or a row is zero or not finite.

    Examples
    --------
    >>> cosine_similarity(np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]]))
    array([0.96])
    """
    a, b = normalised_pairs(audio, text)
    similarity: FloatArray = np.clip(np.einsum("nd,nd->n", a, b), -1.0, 1.0)
    return similarity


def pair_features(
    audio: ArrayLike, text: ArrayLike, *, first_row: int = 0, out: FloatArray | None = None
) -> FloatArray:
    """Return ``φ(a, b) = [a, b, a⊙b, |a−b|, (a−b)², aᵀb]`` for unit a and b.

    Parameters
    ----------
    audio, text : array-like of shape (n_pairs, n_dims)
    first_row : int, default=0
        What the first row is called in messages, where these are a block of more rows.
    out : ndarray of shape (n_pairs, 5 * n_dims + 1), optional
        Where to write them, for example columns of a wider table.

    Returns
    -------
    features : ndarray of shape (n_pairs, 5 * n_dims + 1)
        The blocks in the order of the formula.

    Raises
    ------
    FeatureError
        If the shapes differ, or a row is zero or not finite.

    References
    ----------
    Li, Li and Shinozaki 2026, the pair feature φ.

    Examples
    --------
    >>> pair_features(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    array([[1., 0., 0., 1., 0., 0., 1., 1., 1., 1., 0.]])
    """
    a, b = normalised_pairs(audio, text, first_row=first_row)
    n_pairs, n_dims = a.shape
    features = np.empty((n_pairs, 5 * n_dims + 1), dtype=a.dtype) if out is None else out
    audio_block, text_block, product, distance, square = (
        features[:, i * n_dims : (i + 1) * n_dims] for i in range(5)
    )
    audio_block[:], text_block[:] = a, b
    features[:, -1] = np.clip(np.einsum("nd,nd->n", a, b), -1.0, 1.0)
    np.multiply(a, b, out=product)
    np.abs(a - b, out=distance)
    np.square(distance, out=square)
    return features


def proximities(audio: ArrayLike, text: ArrayLike, *, first_row: int = 0) -> FloatArray:
    """Return ``[aᵀb, ∠(a, b), |a−b|₁, |a−b|₂]`` for unit a and b.

    The angle is ``2 atan2(|a−b|₂, |a+b|₂)``.  The arc cosine would lose half of the digits where
    the vectors nearly have the same or the opposite direction.

    Parameters
    ----------
    audio, text : array-like of shape (n_pairs, n_dims)
    first_row : int, default=0
        What the first row is called in messages, where these are a block of more rows.

    Returns
    -------
    proximities : ndarray of shape (n_pairs, 4)
        The cosine in [-1, 1], the angle in [0, π] radians, and the distances in the L1 and the L2
        norm, in [0, 2√n_dims] and [0, 2].  Each row depends on its own pair only.

    Raises
    ------
    FeatureError
        If the shapes differ, or a row is zero or not finite.

    References
    ----------
    The SVR ensemble of the XACLE challenge, github.com/Snehitc/EnsembleSVR-XACLE; its angle is
    ``1 − ∠/π``.  Kahan, "How futile are mindless assessments of roundoff", for the angle.

    Examples
    --------
    >>> proximities(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])).round(4)
    array([[0.    , 1.5708, 2.    , 1.4142]])
    """
    a, b = normalised_pairs(audio, text, first_row=first_row)
    difference = a - b
    distance = np.linalg.norm(difference, axis=1)
    columns = (
        np.clip(np.einsum("nd,nd->n", a, b), -1.0, 1.0),
        2 * np.arctan2(distance, np.linalg.norm(a + b, axis=1)),
        np.abs(difference).sum(axis=1),
        distance,
    )
    return np.column_stack(columns)


def lexical_overlap(audio: ArrayLike, text: ArrayLike, *, first_row: int = 0) -> FloatArray:
    """Return how many of a caption's words are heard in its clip, as share and as Jaccard index.

    With A the set of words heard and B the caption's, the columns are
    ``[|A ∩ B| / |B|, |A ∩ B| / |A ∪ B|]``.

    Parameters
    ----------
    audio, text : array-like of shape (n_pairs, n_buckets)
        Hashed bags of words: how often the words of each bucket occur.  Words that share a bucket
        count as one.
    first_row : int, default=0
        What the first row is called in messages, where these are a block of more rows.

    Returns
    -------
    overlap : ndarray of shape (n_pairs, 2)
        float32 in [0, 1]; 0 where there are no words to compare.

    Raises
    ------
    FeatureError
        If the shapes differ, or a row holds values that are negative or not finite.

    References
    ----------
    Li, Li and Shinozaki 2026, the lexical overlap of transcript and prompt.

    Examples
    --------
    >>> lexical_overlap([[2, 1, 0, 0]], [[1, 0, 0, 3]])
    array([[0.5       , 0.33333334]], dtype=float32)
    """
    bags = []
    for name, values in (("audio", audio), ("text", text)):
        bag = np.asarray(values)
        if bag.ndim != 2 or bag.dtype.kind not in "fiu":
            raise FeatureError(
                f"{name} words: expected numbers of shape (n_pairs, n_buckets), got shape "
                f"{bag.shape} and type {bag.dtype}."
            )
        bad = np.flatnonzero(~(np.isfinite(bag) & (bag >= 0)).all(axis=1))
        if len(bad):
            raise FeatureError(
                f"{name} words: {len(bad)} of {len(bag)} rows hold values that are negative or "
                f"not finite, the first is row {first_row + bad[0]}. Expected how often words "
                "occur."
            )
        bags.append(bag > 0)
    heard, written = bags
    if heard.shape != written.shape:
        raise FeatureError(
            f"audio words of shape {heard.shape} but text words of shape {written.shape}: both "
            "must come from one encoder and the same pairs."
        )
    shared = (heard & written).sum(axis=1)
    sizes = np.column_stack([written.sum(axis=1), (heard | written).sum(axis=1)])
    overlap: FloatArray = (shared[:, np.newaxis] / np.maximum(sizes, 1)).astype(np.float32)
    return overlap
