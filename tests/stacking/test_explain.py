from io import BytesIO

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

from xacle_stack.errors import StackingError
from xacle_stack.features import FeatureTable
from xacle_stack.metrics import srcc
from xacle_stack.stacking import Stacker
from xacle_stack.stacking.explain import _WithoutFamily

PRESETS = ("best", "paper")


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(160, 9)).astype(np.float32)
    families = {"noise": slice(0, 3), "informative": slice(3, 6), "helpful": slice(6, 9)}
    X = FeatureTable(values, families, tuple(map(str, range(160))))
    y = values[:, 3:6].sum(axis=1) + 0.5 * values[:, 6] + 0.3 * rng.normal(size=160)
    return X, y


@pytest.fixture(scope="module", params=PRESETS)
def explained(request, table):
    X, y = table
    stacker = Stacker(preset=request.param, n_splits=3, random_state=0).fit(X, y)
    return stacker, stacker.explain(X, y)


def test_shares_of_learners_sum_to_one(explained, table) -> None:
    stacker, explanation = explained
    assert [one.name for one in explanation.learners] == stacker.level0_names_
    assert sum(one.share for one in explanation.learners) == pytest.approx(1, abs=1e-9)
    oof = stacker.oof_predictions_
    final = stacker.meta_predict(oof)
    assert explanation.oof_srcc == srcc(table[1], final)
    for one, column, coef in zip(explanation.learners, oof.T, stacker.meta_.coef_, strict=True):
        assert one.oof_srcc == srcc(table[1], column)
        assert one.weight == pytest.approx(coef * column.std() / final.std())
        covariance = np.cov(coef * column, final, bias=True)[0, 1]
        assert one.share == pytest.approx(covariance / final.var())


def test_the_informative_family_loses_most_and_noise_nothing(explained) -> None:
    _, explanation = explained
    loss = {one.name: one.loss for one in explanation.families}
    assert max(loss, key=loss.get) == "informative"
    assert abs(loss["noise"]) < 0.05
    assert loss["informative"] > 0.3
    for one in explanation.families:
        assert one.loss == explanation.oof_srcc - one.srcc_without


def test_shares_of_families_sum_to_one_where_all_learners_tell(explained) -> None:
    _, explanation = explained
    share = {one.name: one.share for one in explanation.families}
    assert sum(share.values()) == pytest.approx(1, abs=1e-9)
    assert share["informative"] > share["helpful"] > share["noise"]


def test_what_is_lost_is_that_of_a_stack_without_the_family(explained, table) -> None:
    stacker, explanation = explained
    X, y = table
    families = {"noise": slice(0, 3), "helpful": slice(3, 6)}
    rest = FeatureTable(np.delete(X.values, slice(3, 6), axis=1), families, X.pair_ids)
    other = Stacker(preset=stacker.preset, n_splits=3, random_state=0).fit(rest, y)
    without = srcc(y, other.meta_predict(other.oof_predictions_))
    assert explanation.families[1].srcc_without == without


def test_a_table_without_a_family(problem) -> None:
    X, _, _ = problem(30)
    rest = _WithoutFamily(X, "two")
    gone = X.families["two"]
    assert rest.shape == (30, X.shape[1] - (gone.stop - gone.start))
    assert list(rest.families) == ["one", "agreement"]
    np.testing.assert_array_equal(rest.rows(slice(3, 9)), np.delete(X.values[3:9], gone, axis=1))
    for name, span in rest.families.items():
        np.testing.assert_array_equal(rest.rows(slice(0, 30))[:, span], X.family(name))
        np.testing.assert_array_equal(rest.rows(slice(0, 30), name), X.family(name))
    for name, span in rest.blocks.items():
        np.testing.assert_array_equal(rest.rows(slice(0, 30))[:, span], X.values[:, X.blocks[name]])
    assert not any(name.startswith("two/") for name in rest.blocks)


def test_it_reads_as_markdown_and_as_a_plot(explained) -> None:
    stacker, explanation = explained
    text = explanation.to_markdown()
    assert repr(explanation) == text
    for name in (*stacker.level0_names_, *stacker.families_):
        assert f"| {name} |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 + len(stacker.level0_names_) + len(stacker.families_)
    assert all(line.count("|") == 5 for line in rows)
    figure, content = explanation.plot(), BytesIO()
    figure.savefig(content, format="png")
    assert content.getvalue().startswith(b"\x89PNG")
    shown = [label.get_text() for axis in figure.axes for label in axis.get_yticklabels()]
    assert {*stacker.level0_names_, *stacker.families_} <= {*shown}


@pytest.mark.parametrize("preset", PRESETS)
def test_one_family_has_nothing_to_be_left_out_for(table, preset: str) -> None:
    X, y = table
    stacker = Stacker(preset=preset, n_splits=2, random_state=0).fit(X.values, y)
    explanation = stacker.explain(X.values, y)
    (family,) = explanation.families
    assert family.name == "all"
    assert family.share == pytest.approx(1, abs=1e-9)
    assert np.isnan([family.srcc_without, family.loss]).all()
    assert "| all | 100.0% | – | – |" in explanation.to_markdown()
    explanation.plot().savefig(BytesIO(), format="png")


def test_a_meta_regressor_or_learners_that_do_not_tell(table) -> None:
    X, y = table
    stacker = Stacker([("linear", LinearRegression())], KNeighborsRegressor(), random_state=0).fit(
        X, y
    )
    explanation = stacker.explain(X, y)
    text = explanation.to_markdown()
    assert "nan" not in text
    assert np.isnan(explanation.learners[0].weight)
    assert np.isfinite([one.loss for one in explanation.families]).all()
    explanation.plot().savefig(BytesIO(), format="png")


def test_groups_weights_and_a_rank_target_are_those_of_the_fit(problem) -> None:
    X, y, groups = problem(60)
    given = {"groups": groups, "sample_weight": np.arange(1, 61)}
    stacker = Stacker(preset="paper", target="rank", random_state=0).fit(X, y, **given)
    before = stacker.oof_predictions_.tobytes()
    explanation = stacker.explain(X, y, **given)
    assert stacker.oof_predictions_.tobytes() == before
    assert sum(one.share for one in explanation.learners) == pytest.approx(1, abs=1e-9)
    other = Stacker(preset="paper", target="rank", random_state=0).fit(X, y, groups)
    unweighted = other.explain(X, y, groups)
    assert unweighted.families[0].srcc_without != explanation.families[0].srcc_without


def test_other_pairs_than_those_of_the_fit_are_refused(problem) -> None:
    X, y, groups = problem(60)
    given = {"groups": groups, "sample_weight": np.arange(1, 61)}
    stacker = Stacker(preset="paper", random_state=0).fit(X, y, **given)
    changed = np.where(np.arange(60) == 7, 4.5, y)
    turned = np.arange(60)[::-1]
    remedy = "Give explain the X, y, groups and sample_weight that fit was given, in the same order"
    for table, scores, changes, message in (
        (X, changed, {}, f"y is not that .* in row 7 it is 4.5, not {y[7]}. {remedy}"),
        (X[turned], y, {}, f"X is not that which the stacker was fitted on. {remedy}"),
        (X[turned], y[turned], {}, "y is not that which"),
        (X[:59], y[:59], {"groups": groups[:59], "sample_weight": np.arange(1, 60)}, "59 pairs to"),
        (X, y, {"groups": None}, "groups is not that which"),
        (X, y, {"sample_weight": None}, "sample_weight is not that .* in row 1 it is 1.0, not 2.0"),
    ):
        with pytest.raises(StackingError, match=message):
            stacker.explain(table, scores, **{**given, **changes})
    # Features that are made again elsewhere differ by rounding, labels by their names.
    again = FeatureTable(X.values * np.float32(1 + 3e-7), X.families, X.pair_ids, X.blocks)
    renamed = {**given, "groups": [f"caption {label}" for label in groups]}
    assert len(stacker.explain(again, list(y), **renamed).families) == 3
