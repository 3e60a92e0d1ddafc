"""Fit mini-CLAP on synthesised scenes: ``python -m xacle_stack.encoders.mini.fit``.

Scenes and captions come from the "fit" streams and the "fit" half of captions, so no part of a demo
data set is used.  It takes about half a minute with two workers.
"""

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from scipy import linalg

from xacle_stack._types import FloatArray
from xacle_stack.encoders.mini import MINI_ENCODERS
from xacle_stack.encoders.mini.weights import MiniWeights
from xacle_stack.errors import EncoderError
from xacle_stack.synth import (
    Story,
    draw_scene,
    draw_story,
    random_stream,
    render_scene,
    write_caption,
)

logger = logging.getLogger(__name__)

N_SCENES = 3000
# Several wordings of each scene teach the caption towers synonyms at no cost in rendering.
N_WORDINGS = 3
RIDGE_AUDIO, RIDGE_CAPTION = 0.05, 0.2
_CHUNK = 50


@dataclass(frozen=True, eq=False)
class Cca:
    """Canonical directions of two views, the most correlated first.

    Columns of the maps give variates of unit (regularised) variance.
    """

    x_mean: FloatArray
    y_mean: FloatArray
    x_map: FloatArray
    y_map: FloatArray
    correlations: FloatArray


def fit_cca(
    x: FloatArray, y: FloatArray, n_dims: int, ridge_x: float = 0.0, ridge_y: float = 0.0
) -> Cca:
    """Find the directions of two views with the largest correlations.

    Row ``i`` of both describes the same thing.  A ridge is added to each view's covariance, as a
    share of its mean variance.  Each direction's sign is such that the largest entry of its
    ``x_map`` is positive.  EncoderError if the rows differ in number, or there are fewer directions
    than asked for.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> fit_cca(x, 2 * x[:, ::-1], n_dims=2).correlations.round(6)
    array([1., 1.])
    """
    if len(x) != len(y) or n_dims > min(x.shape[1], y.shape[1]):
        raise EncoderError(
            f"views of shapes {x.shape} and {y.shape} cannot give {n_dims} canonical directions. "
            "Give as many rows in both, and ask for no more directions than columns."
        )
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_mean, y - y_mean
    x_root, y_root = _covariance_root(x, ridge_x), _covariance_root(y, ridge_y)
    shared = linalg.solve_triangular(x_root, x.T @ y / len(x), lower=True)
    shared = linalg.solve_triangular(y_root, shared.T, lower=True).T
    left, correlations, right = linalg.svd(shared, full_matrices=False)
    x_map = linalg.solve_triangular(x_root.T, left[:, :n_dims])
    y_map = linalg.solve_triangular(y_root.T, right[:n_dims].T)
    signs = np.sign(x_map[np.abs(x_map).argmax(axis=0), np.arange(n_dims)])
    return Cca(x_mean, y_mean, x_map * signs, y_map * signs, correlations[:n_dims])


def _covariance_root(centred: FloatArray, ridge: float) -> FloatArray:
    covariance = centred.T @ centred / len(centred)
    variance = covariance.trace() / len(covariance)
    covariance.flat[:: len(covariance) + 1] += ridge * variance
    return np.asarray(linalg.cholesky(covariance, lower=True))


def fit_mini(
    n_scenes: int = N_SCENES, seed: int = 0, n_jobs: int | None = None
) -> dict[str, MiniWeights]:
    """Fit the three spaces; the weights are by encoder name.

    Equal seeds give equal weights up to the rounding of the linear algebra library, with any number
    of worker processes.
    """
    chunks = [range(i, min(i + _CHUNK, n_scenes)) for i in range(0, n_scenes, _CHUNK)]
    done = Parallel(n_jobs=n_jobs)(delayed(_render_chunk)(seed, chunk) for chunk in chunks)
    captions = [caption for _, wordings in done for caption in wordings]
    fitted = {}
    for encoder in MINI_ENCODERS:
        name = encoder.info.name
        features = np.concatenate([by_name[name] for by_name, _ in done]).astype(np.float64)
        centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-3
        audio = np.repeat((features - centre) / scale, N_WORDINGS, axis=0)
        counts = np.stack([encoder.reader.counts(c) for c in captions]).astype(np.float64)
        n_dims = encoder.info.audio_outputs["embedding"]
        cca = fit_cca(audio, counts, n_dims, RIDGE_AUDIO, RIDGE_CAPTION)
        logger.info("%s: leading correlations %s", name, cca.correlations[:5].round(3))
        # Weighting by the correlations lets the cosine attend to what the views share.
        audio_map, caption_map = cca.x_map * cca.correlations, cca.y_map * cca.correlations
        fitted[name] = MiniWeights(centre, scale, audio_map, caption_map, -cca.y_mean @ caption_map)
    return fitted


def draw_wordings(rng: np.random.Generator) -> tuple[Story, list[str]]:
    """Draw a story and :data:`N_WORDINGS` captions for it."""
    story = draw_story(rng)
    return story, [write_caption(rng, story, "fit") for _ in range(N_WORDINGS)]


def _render_chunk(seed: int, numbers: range) -> tuple[Mapping[str, FloatArray], list[str]]:
    features: dict[str, list[FloatArray]] = {encoder.info.name: [] for encoder in MINI_ENCODERS}
    captions = []
    for number in numbers:
        rng = random_stream(seed, "fit", number)
        story, wordings = draw_wordings(rng)
        captions += wordings
        samples = render_scene(rng, draw_scene(rng, story))
        for encoder in MINI_ENCODERS:
            features[encoder.info.name].append(encoder.front_end(samples))
    return {name: np.stack(rows) for name, rows in features.items()}, captions


def main() -> None:
    """Refit the spaces and write their npz files."""
    parser = argparse.ArgumentParser(description="Refit the mini-CLAP encoders.")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder to write to"
    )
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, weights in fit_mini(n_jobs=arguments.jobs).items():
        weights.save(arguments.out / f"{name}.npz")


if __name__ == "__main__":
    main()
