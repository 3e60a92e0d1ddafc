import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from xacle_stack.errors import MetricError
from xacle_stack.results.generators import GeneratorComparison, compare_generators

N_PROMPTS = 60


def clips(
    means: dict[str, float], seed: int = 0
) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Return one clip of each generator for each prompt; prompts differ in their difficulty."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(size=N_PROMPTS)
    generators = [name for name in means for _ in range(N_PROMPTS)]
    prompts = [f"p{n}" for _ in means for n in range(N_PROMPTS)]
    noise = rng.normal(scale=0.5, size=(len(means), N_PROMPTS))
    scores = np.array([*means.values()])[:, np.newaxis] + difficulty + noise
    return generators, prompts, scores.ravel()


def without(keep: NDArray[np.bool_], *arrays: object) -> list[object]:
    return [np.asarray(array)[keep].tolist() for array in arrays]


def compared(means: dict[str, float], **settings: float) -> GeneratorComparison:
    return compare_generators(*clips(means), n_bootstrap=2000, **settings)  # type: ignore[arg-type]


def test_generators_are_ranked_by_their_mean_score() -> None:
    generators, prompts, scores = clips({"low": 4, "high": 6, "middle": 5})
    comparison = compare_generators(generators, prompts, scores, n_bootstrap=100)
    assert [one.name for one in comparison.generators] == ["high", "middle", "low"]
    means = {one.name: one.mean.value for one in comparison.generators}
    for n, name in enumerate(("low", "high", "middle")):
        own = scores[n * N_PROMPTS : (n + 1) * N_PROMPTS]
        np.testing.assert_allclose(means[name], own.mean())
    assert (comparison.n_prompts, comparison.n_common_prompts) == (N_PROMPTS, N_PROMPTS)


def test_the_interval_of_a_mean_is_scipys_percentile_bootstrap() -> None:
    generators, prompts, scores = clips({"one": 5})
    mean = compare_generators(generators, prompts, scores).generators[0].mean
    expected = stats.bootstrap(
        (scores,), np.mean, n_resamples=10_000, method="percentile", random_state=1
    ).confidence_interval
    np.testing.assert_allclose((mean.low, mean.high), expected, atol=0.02)


def test_a_difference_is_that_of_the_same_prompts() -> None:
    """Prompts vary far more than the generators differ: only a paired comparison sees it."""
    comparison = compared({"better": 5.3, "worse": 5.0})
    (difference,) = comparison.differences
    better, worse = comparison.generators
    assert (difference.first, difference.second) == ("better", "worse")
    np.testing.assert_allclose(difference.value.value, better.mean.value - worse.mean.value)
    assert difference.is_clear
    assert difference.p_value < 0.05
    assert worse.mean.high > better.mean.low  # the intervals of the means overlap


def test_more_comparisons_widen_the_intervals_and_raise_p() -> None:
    two = compared({"a": 5.15, "b": 5.0}).differences[0]
    generators, prompts, scores = clips({"a": 5.15, "b": 5.0})
    rng = np.random.default_rng(3)
    for name in "cdef":
        generators += [name] * N_PROMPTS
        prompts += [f"p{n}" for n in range(N_PROMPTS)]
        scores = np.append(scores, rng.normal(5, 1, size=N_PROMPTS))
    many = compare_generators(generators, prompts, scores, n_bootstrap=2000)
    (same,) = [d for d in many.differences if {d.first, d.second} == {"a", "b"}]
    assert len(many.differences) == 15
    np.testing.assert_allclose(same.value.value, two.value.value)
    assert same.value.low < two.value.low < two.value.high < same.value.high
    assert same.p_value >= two.p_value


def test_equal_generators_do_not_differ() -> None:
    generators, prompts, scores = clips({"a": 5})
    both = compare_generators(
        [*generators, *["b"] * N_PROMPTS], prompts * 2, np.tile(scores, 2), n_bootstrap=50
    )
    (difference,) = both.differences
    assert (difference.value.value, difference.value.low, difference.value.high) == (0, 0, 0)
    assert (difference.p_value, difference.is_clear) == (1.0, False)


def test_missing_clips_change_a_mean_only_over_its_own_prompts() -> None:
    generators, prompts, scores = clips({"whole": 5, "gaps": 5})
    # The easier half of the prompts has no clip of the second.
    hard = scores[:N_PROMPTS] < np.median(scores[:N_PROMPTS])
    keep = np.concatenate([np.ones(N_PROMPTS, bool), hard])
    names, ids, kept = without(keep, generators, prompts, scores)
    comparison = compare_generators(names, ids, kept, n_bootstrap=100)  # type: ignore[arg-type]
    by_name = {one.name: one for one in comparison.generators}
    assert (by_name["gaps"].n_missing, by_name["whole"].n_missing) == (int((~hard).sum()), 0)
    np.testing.assert_allclose(by_name["whole"].mean_on_common, scores[:N_PROMPTS][hard].mean())
    np.testing.assert_allclose(by_name["gaps"].mean.value, scores[N_PROMPTS:][hard].mean())
    (difference,) = comparison.differences
    assert difference.n_prompts == comparison.n_common_prompts == int(hard.sum())
    (sentence,) = comparison.sentences()
    assert f"gaps {int((~hard).sum())}" in sentence
    assert "whole changes by -" in sentence


def test_the_share_below_has_wilsons_interval_also_at_none() -> None:
    comparison = compare_generators(["a"] * 10, list("abcdefghij"), np.arange(10), below=0)
    share = comparison.generators[0].share_below
    assert (share.value, share.low) == (0, 0)
    np.testing.assert_allclose(share.high, 0.2775, atol=1e-4)  # 1.96² / (10 + 1.96²)


def test_several_clips_of_a_prompt_count_as_their_mean() -> None:
    comparison = compare_generators(["a", "a", "a"], ["p", "p", "q"], [2, 4, 9], n_bootstrap=10)
    np.testing.assert_allclose(comparison.generators[0].mean.value, 6)
    assert comparison.generators[0].n_clips == 3


def test_prompts_on_which_generators_differ_most_come_first() -> None:
    comparison = compare_generators(
        ["a", "b"] * 3, ["p", "p", "q", "q", "r", "r"], [5, 6, 9, 1, 4, 4], n_bootstrap=10
    )
    first = comparison.prompts[0]
    assert (first.prompt, first.best, first.worst, first.spread) == ("q", "a", "b", 8)
    assert [prompt.prompt for prompt in comparison.prompts] == ["q", "p"]  # equal on the last


def test_prompts_without_any_clip_are_missing_for_all() -> None:
    comparison = compare_generators(["a"], ["p"], [5], all_prompts=["p", "q", "r"], n_bootstrap=9)
    assert (comparison.n_prompts, comparison.generators[0].n_missing) == (3, 2)
    assert "a 2" in comparison.sentences()[0]


def test_generators_with_the_same_scores_differ_on_no_prompt() -> None:
    comparison = compare_generators(["a", "b"] * 2, list("ppqq"), [5, 5, 6, 6], n_bootstrap=9)
    assert comparison.prompts == ()


def test_human_scores_are_compared_by_clip_and_by_generator() -> None:
    generators, prompts, scores = clips({"a": 4, "b": 5, "c": 6})
    human = scores + np.random.default_rng(1).normal(scale=0.1, size=len(scores))
    human[::3] = np.nan
    comparison = compare_generators(generators, prompts, scores, human=human, n_bootstrap=10)
    assert comparison.human is not None
    rated = ~np.isnan(human)
    assert comparison.human.n_clips == rated.sum()
    expected = stats.spearmanr(human[rated], scores[rated]).statistic
    np.testing.assert_allclose(comparison.human.srcc_of_clips.value, expected)
    assert comparison.human.srcc_of_generators == 1.0
    assert "mean human scores is 1.00" in comparison.sentences()[-1]
    two = compare_generators(
        generators[: 2 * N_PROMPTS],
        prompts[: 2 * N_PROMPTS],
        scores[: 2 * N_PROMPTS],
        human=human[: 2 * N_PROMPTS],
        n_bootstrap=10,
    )
    assert "too few to rank" in two.sentences()[-1]


def test_the_same_seed_gives_the_same_figures() -> None:
    means = {"a": 5.0, "b": 5.1}
    assert compared(means, random_state=1) == compared(means, random_state=1)
    assert compared(means, random_state=1) != compared(means, random_state=2)


def test_the_record_is_plain_json_and_its_tables_hold_the_figures() -> None:
    comparison = compare_generators(["a", "b"], ["p", "q"], [5, 6], n_bootstrap=10)
    found = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    assert found["generators"][0]["name"] == "b"
    assert found["differences"][0]["p_value"] is None  # no prompt has clips of both
    titles = [table.title for table in comparison.tables()]
    assert titles[0].startswith("Generators: 2 prompts, 95% intervals")
    assert "No prompt has a clip of every generator" in comparison.sentences()[0]


@pytest.mark.parametrize(
    ("changed", "facts"),
    [
        ({"generators": ["a"]}, "1 generators, 2 prompts"),
        ({"scores": [1, np.nan]}, "finite"),
        ({"generators": [], "prompts": [], "scores": []}, "one clip or more"),
        ({"confidence": 1.0}, "confidence must lie between 0 and 1"),
        ({"n_bootstrap": 0}, "n_bootstrap be 1 or more"),
    ],
)
def test_unusable_input_is_refused(changed: dict[str, object], facts: str) -> None:
    given = {"generators": ["a", "b"], "prompts": ["p", "p"], "scores": [1, 2]} | changed
    with pytest.raises(MetricError, match=facts):
        compare_generators(**given)  # type: ignore[arg-type]
