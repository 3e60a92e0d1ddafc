"""Real recordings with real listeners' judgements, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest

from xacle_stack.experiment import fill_cache, run_experiment
from xacle_stack.pairs import list_splits, read_pairs
from xacle_stack.recipe import read_recipe


@pytest.mark.usefixtures("few_resamples")
def test_esc10_from_recordings_to_results(real_data: Path, tmp_path: Path) -> None:
    data = real_data / "esc10"
    assert list_splits(data) == ["train", "validation"]
    train = read_pairs(data, "train")
    assert (len(train), len(train.ratings)) == (640, 9579)
    # The published mean of every pair is that of its ratings.
    by_pair: dict[str, list[float]] = {}
    for pair_id, score in zip(train.ratings.pair_ids, train.ratings.scores, strict=True):
        by_pair.setdefault(pair_id, []).append(score)
    means = [np.mean(by_pair[pair_id]) for pair_id in train.ids]
    np.testing.assert_allclose(means, train.scores, atol=1e-4)

    recipe = read_recipe("mini").model_copy(update={"subset_sizes": ()})
    report = fill_cache(data, recipe, tmp_path / "store", n_jobs=2, progress=False)
    assert not report.failures
    # One recording stands under several names.
    assert report.encoded["mini-mel", "audio"] < 300 < len(train)
    systems = recipe.stack_systems
    *_, results = run_experiment(
        data, recipe, systems, tmp_path / "store", tmp_path / "out", n_jobs=2
    )
    (result,) = results
    assert result.evaluation.srcc.low > 0  # far from chance; how good stands in benchmarks/


@pytest.mark.slow
@pytest.mark.usefixtures("few_resamples")
def test_esc10_by_real_encoders_that_share_no_space(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    recipe = read_recipe("offline")
    for choice in recipe.encoders:
        weights = choice.info.weights
        if weights is None or weights.packaged is None:
            pytest.skip(f"{choice.name} needs its weights: {weights and weights.package}")
    fill_cache(real_data / "esc10", recipe, tmp_path / "store", n_jobs=2)
    *_, (result,) = run_experiment(
        real_data / "esc10", recipe, recipe.stack_systems, tmp_path / "store", tmp_path / "out"
    )
    # Neither encoder says anything by itself: the clips of validation are new.
    assert result.evaluation.srcc.low > 0.5
