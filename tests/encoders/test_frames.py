import math

import numpy as np
import pytest

from xacle_stack.encoders.frames import (
    count_convolved,
    cut,
    masked_statistics,
    merge_statistics,
    pool_frames,
    receptive_field,
    standardise,
)

torch = pytest.importorskip("torch")


def expected(frames: np.ndarray) -> np.ndarray:
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0), frames.max(axis=0)])


def test_pieces_hold_every_sample_once(rng: np.random.Generator) -> None:
    clips = [rng.normal(size=n) for n in (1, 10, 11, 20, 35)]
    pieces, counts = cut(clips, 10)
    assert counts == [1, 1, 2, 2, 4]
    assert max(map(len, pieces)) <= 10
    np.testing.assert_array_equal(np.concatenate(pieces), np.concatenate(clips))


def test_convolutions_are_counted() -> None:
    kernels, strides = [4, 3], [3, 2]
    shortest = receptive_field(kernels, strides)
    convolutions = [torch.nn.Conv1d(1, 1, *layer) for layer in zip(kernels, strides, strict=True)]
    for n_samples in range(shortest, 40):
        n_frames = torch.nn.Sequential(*convolutions)(torch.zeros(1, 1, n_samples)).shape[-1]
        assert count_convolved(n_samples, kernels, strides) == n_frames
    assert count_convolved(shortest, kernels, strides) == 1
    assert count_convolved(shortest - 1, kernels, strides) == 0


def test_statistics_are_those_of_the_real_frames(rng: np.random.Generator) -> None:
    frames = rng.normal(loc=3, size=(4, 9, 5)).astype(np.float32)
    n_frames = np.array([9, 1, 4, 8])
    for row, n in zip(frames, n_frames, strict=True):
        row[n:] = np.nan  # what padding holds does not matter
    statistics = masked_statistics(torch.from_numpy(frames), torch.from_numpy(n_frames))
    for row, n, found in zip(frames, n_frames, statistics.numpy(), strict=True):
        np.testing.assert_allclose(found, expected(row[:n]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(statistics[1, 5:10], 0)


def test_merged_statistics_are_those_of_all_frames(rng: np.random.Generator) -> None:
    pieces = [rng.normal(loc=n, size=(n, 3)).astype(np.float32) for n in (4, 7, 6, 2)]
    rows = [
        masked_statistics(torch.from_numpy(piece)[None], torch.tensor([len(piece)]))
        for piece in pieces
    ]
    n_frames = torch.tensor([len(piece) for piece in pieces])
    merged = merge_statistics(torch.cat(rows), n_frames, [1, 3]).numpy()
    np.testing.assert_allclose(merged[0], expected(pieces[0]), rtol=1e-5)
    np.testing.assert_allclose(merged[1], expected(np.concatenate(pieces[1:])), rtol=1e-5)


@pytest.mark.parametrize("spread", [1.0, 1.25, math.inf])
def test_clips_are_pooled_in_their_order(rng: np.random.Generator, spread: float) -> None:
    # At one sample a second: pieces of 30 at most, six clips' worth of 60 in a batch.
    clips = [rng.normal(size=n).astype(np.float32) for n in (90, 4, 47, 5, 4, 75)]
    batches = []

    def get_frames(pieces):
        batches.append([len(piece) for piece in pieces])
        padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(p) for p in pieces], True)
        return padded[..., None], torch.tensor(batches[-1])

    pooled = pool_frames(clips, 1, get_frames, spread).numpy()
    for clip, found in zip(clips, pooled, strict=True):
        np.testing.assert_allclose(found, expected(clip[:, None]), rtol=1e-4, atol=1e-6)
    assert all(max(batch) <= spread * min(batch) for batch in batches)
    assert all(max(batch) * len(batch) <= 60 for batch in batches)
    assert len(batches) < sum(map(len, batches))


def test_a_constant_clip_standardises_to_silence() -> None:
    np.testing.assert_array_equal(standardise(np.full(9, 0.5, dtype=np.float32)), 0)
    assert standardise(np.ones(9, dtype=np.float32)).dtype == np.float32
