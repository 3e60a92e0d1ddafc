from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

from xacle_stack.errors import StackingError, UnknownNameError
from xacle_stack.metrics import srcc, srcc_gain
from xacle_stack.stacking import Stacker
from xacle_stack.table import FeatureTable

PRESETS = ("best", "paper")


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(160, 9)).astype(np.float32)
    blocks = {"noise": slice(0, 3), "informative": slice(3, 6), "helpful": slice(6, 9)}
    X = FeatureTable(values, blocks)
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
    loss = {one.name: one.loss.value for one in explanation.families}
    assert max(loss, key=loss.get) == "informative"
    assert abs(loss["noise"]) < 0.05
    assert loss["informative"] > 0.3
    for one in explanation.families:
        assert one.loss.value == pytest.approx(explanation.oof_srcc - one.srcc_without)


def test_shares_of_families_sum_to_one_where_all_learners_tell(explained) -> None:
    _, explanation = explained
    share = {one.name: one.share for one in explanation.families}
    assert sum(share.values()) == pytest.approx(1, abs=1e-9)
    assert share["informative"] > share["helpful"] > share["noise"]


def test_what_is_lost_is_that_of_a_stack_without_the_family(explained, table) -> None:
    stacker, explanation = explained
    X, y = table
    blocks = {"noise": slice(0, 3), "helpful": slice(3, 6)}
    rest = FeatureTable(np.delete(X.values, slice(3, 6), axis=1), blocks)
    other = Stacker(preset=stacker.preset, n_splits=3, random_state=0).fit(rest, y)
    without = srcc(y, other.meta_predict(other.oof_predictions_))
    assert explanation.families[1].srcc_without == without


def test_an_auxiliary_that_families_share_counts_for_each(table) -> None:
    X, y = table
    families = {"noise": ("noise", "helpful"), "informative": ("informative", "helpful")}
    shared = FeatureTable(X.values, X.blocks, families=families)
    stacker = Stacker(n_splits=2, random_state=0).fit(shared, y)
    explanation = stacker.explain(shared, y)
    assert sum(one.share for one in explanation.families) == pytest.approx(1, abs=1e-9)
    rest = shared.select(["noise"])
    assert list(rest.blocks) == ["noise", "helpful"]  # what is shared stays
    other = Stacker(n_splits=2, random_state=0).fit(rest, y)
    without = srcc(y, other.meta_predict(other.oof_predictions_))
    assert explanation.families["informative"].srcc_without == without


def test_it_reads_as_markdown_html_and_a_frame(explained) -> None:
    stacker, explanation = explained
    text, html = explanation.to_markdown(), explanation._repr_html_()
    assert repr(explanation) == text
    for name in (*stacker.level0_names_, *stacker.families_):
        assert f"| {name} |" in text
        assert f"<td>{name}</td>" in html
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 + len(stacker.level0_names_) + len(stacker.families_)
    assert all(line.count("|") == 5 for line in rows)
    is_negative = min(one.share for one in (*explanation.learners, *explanation.families)) < 0
    assert ("negative share" in text) == ("negative share" in html) == is_negative
    frame = explanation.to_frame()
    assert list(frame.index) == list(stacker.families_)
    for one in explanation.families:
        found = frame.loc[one.name, ["share", "srcc_without", "loss", "loss_low", "loss_high"]]
        loss = one.loss
        assert found.tolist() == [one.share, one.srcc_without, loss.value, loss.low, loss.high]
    assert explanation.learners.to_frame()["oof_srcc"].tolist() == [
        one.oof_srcc for one in explanation.learners
    ]


def test_rows_are_found_by_number_and_name(explained) -> None:
    _, explanation = explained
    assert explanation.families[0] is explanation.families["noise"]
    with pytest.raises(UnknownNameError, match="'loud'.*'noise', 'informative', 'helpful'"):
        explanation.families["loud"]


def test_losses_have_the_interval_of_a_paired_bootstrap(explained, table) -> None:
    stacker, explanation = explained
    X, y = table
    other = Stacker(preset=stacker.preset, n_splits=3, random_state=0)
    other.fit(X.select(["informative", "helpful"]), y)
    whole, without = (s.meta_predict(s.oof_predictions_) for s in (stacker, other))
    expected = srcc_gain(y, whole, without)
    assert explanation.families["noise"].loss == expected
    informative = explanation.families["informative"].loss
    assert 0 < informative.low < informative.value < informative.high


def test_the_plot_shows_losses_with_intervals_on_named_axes(explained) -> None:
    stacker, explanation = explained
    figure, given = plt.subplots()
    axes = explanation.plot(ax=given)
    assert axes is given
    assert "SRCC" in axes.get_xlabel()
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(names) == sorted(stacker.families_)
    spans = [tuple(line.get_xdata()) for line in axes.lines]
    for one in explanation.families:
        assert (one.loss.low, one.loss.high) in spans
    figure.savefig(BytesIO(), format="png")
    plt.close(figure)


@pytest.mark.parametrize("preset", PRESETS)
def test_one_family_has_nothing_to_be_left_out_for(table, preset: str) -> None:
    X, y = table
    stacker = Stacker(preset=preset, n_splits=2, random_state=0).fit(X.values, y)
    explanation = stacker.explain(X.values, y)
    (family,) = explanation.families
    assert family.name == "all"
    assert family.share == pytest.approx(1, abs=1e-9)
    assert np.isnan(family.srcc_without)
    assert family.loss is None
    assert "| all | 100.0% | – | – |" in explanation.to_markdown()
    assert np.isnan(explanation.to_frame().loc["all", "loss"])
    explanation.plot().figure.savefig(BytesIO(), format="png")
    plt.close("all")


def test_a_meta_regressor_or_learners_that_do_not_tell(table) -> None:
    X, y = table
    stacker = Stacker([("linear", LinearRegression())], KNeighborsRegressor(), random_state=0).fit(
        X, y
    )
    explanation = stacker.explain(X, y)
    text = explanation.to_markdown()
    assert "nan" not in text
    assert np.isnan(explanation.learners[0].weight)
    assert np.isfinite([one.loss.value for one in explanation.families]).all()
    explanation.plot().figure.savefig(BytesIO(), format="png")
    plt.close("all")


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
    remedy = "Give explain the X, y, groups and sample_weight"
    for table, scores, changes, message in (
        (X, changed, {}, f"y is not .* row 7 .* 4.5, not {y[7]}. {remedy}"),
        (X[turned], y, {}, f"X is not .*fitted on. {remedy}"),
        (X[turned], y[turned], {}, "y is not"),
        (X[:59], y[:59], {"groups": groups[:59], "sample_weight": np.arange(1, 60)}, "59 pairs to"),
        (X, y, {"groups": None}, "groups is not"),
        (X, y, {"sample_weight": None}, "sample_weight is not .* row 1 .* 1.0, not 2.0"),
    ):
        with pytest.raises(StackingError, match=message):
            stacker.explain(table, scores, **{**given, **changes})
    # Features that are made again elsewhere differ by rounding, labels by their names.
    again = FeatureTable(X.values * np.float32(1 + 3e-7), X.blocks, X.pair_ids, X.families)
    renamed = {**given, "groups": [f"caption {label}" for label in groups]}
    assert len(stacker.explain(again, list(y), **renamed).families) == 3
