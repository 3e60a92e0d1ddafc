import csv

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.linear_model import LinearRegression

from xacle_stack.errors import StackingError
from xacle_stack.features import FeatureBuilder, PairEmbeddings
from xacle_stack.metrics import srcc
from xacle_stack.stacking import Selection, Stacker, select_stack
from xacle_stack.table import FeatureTable

PAPER = Stacker(preset="paper", n_splits=3, random_state=0)
Problem = tuple[FeatureTable, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def table() -> Problem:
    """Return three families, of which one is noise, scores, and captions of two pairs each."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(160, 9)).astype(np.float32)
    blocks = {"noise": slice(0, 3), "informative": slice(3, 6), "helpful": slice(6, 9)}
    y = values[:, 3:6].sum(axis=1) + values[:, 6] + 0.3 * rng.normal(size=160)
    return FeatureTable(values, blocks), y, np.repeat(np.arange(80), 2).astype(str)


@pytest.fixture(scope="module")
def selection(table: Problem) -> Selection:
    return select_stack(*table, stacker=PAPER, presets=["paper"])


@pytest.fixture(scope="module")
def embeddings() -> tuple[PairEmbeddings, np.ndarray]:
    """Return a space and an auxiliary that know the scores, and one of each that do not."""
    rng = np.random.default_rng(1)
    a, b, c, d, tags = rng.normal(size=(5, 120, 3))
    X = PairEmbeddings(
        {"good": (a, b), "bad": (c, d)},
        {"tags:logits": tags, "level:embedding": rng.normal(size=(120, 2))},
        text_auxiliary={"words:embedding": rng.normal(size=(120, 2))},
    )
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return X, 3 * cosine + tags[:, 0] + 0.2 * rng.normal(size=120)


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_noise_is_dropped_and_what_informs_is_kept(table: Problem, preset: str) -> None:
    chosen = select_stack(*table, stacker=PAPER, presets=[preset]).chosen
    assert chosen.dropped == ("noise",)
    assert chosen.parts == ("informative", "helpful")
    assert chosen.preset == preset


def test_figures_are_those_of_stacks_with_the_same_folds(
    table: Problem, selection: Selection
) -> None:
    X, y, groups = table
    for one in selection.candidates:
        stacker = clone(PAPER).set_params(left_out=one.left_out)
        stacker.fit(X.select(one.parts), y, groups)
        assert one.srcc == pytest.approx(srcc(y, stacker.oof_scores_), abs=1e-9)
    names = [one.name for one in selection.candidates]
    assert len(set(names)) == len(names)
    # All parts, each left out, and each of the two others left out beside the noise.
    assert selection.n_fits == 1 + 3 + 2
    values = [one.srcc for one in selection.candidates]
    assert values == sorted(values, reverse=True)


def test_the_rule_is_that_of_a_few_lines_of_numpy(table: Problem, selection: Selection) -> None:
    X, y, groups = table
    captions = np.unique(groups)
    rows_of = {caption: np.flatnonzero(groups == caption) for caption in dict.fromkeys(groups)}
    assert len(captions) == selection.n_groups == 80

    def scores_of(one) -> np.ndarray:
        stacker = clone(PAPER).set_params(left_out=one.left_out)
        return stacker.fit(X.select(one.parts), y, groups).oof_scores_

    scores = [scores_of(one) for one in selection.candidates]
    rng = np.random.default_rng(0)
    rows_of = list(rows_of.values())
    resamples = [
        np.concatenate([rows_of[i] for i in rng.integers(80, size=80)]) for _ in range(1000)
    ]
    close = []
    for one, own in zip(selection.candidates, scores, strict=True):
        gaps = [
            spearmanr(y[rows], own[rows]).statistic - spearmanr(y[rows], scores[0][rows]).statistic
            for rows in resamples
        ]
        loss = selection.best.srcc - one.srcc
        assert one.standard_error == pytest.approx(np.std(gaps, ddof=1), abs=1e-9)
        assert one.difference.value == pytest.approx(-loss, abs=1e-9)
        assert one.difference.low == pytest.approx(np.quantile(gaps, 0.025), abs=1e-9)
        assert one.is_close == (loss <= one.standard_error)
        close += [one] if one.is_close else []
    assert selection.chosen is min(
        close, key=lambda one: (one.n_spaces, len(one.parts), one.n_learners, -one.srcc)
    )


def test_parts_of_embeddings_are_spaces_auxiliaries_and_agreement(embeddings) -> None:
    X, y = embeddings
    builder = FeatureBuilder(
        ["good", "bad"],
        ["tags:logits", "level:embedding"],
        n_components=2,
        text_auxiliary=["words:embedding"],
    )
    selection = select_stack(X, y, builder=builder, stacker=PAPER, presets=["paper"])
    first = next(one for one in selection.candidates if not one.dropped)
    assert first.parts == ("good", "bad", "tags:logits", "level:embedding", *first.parts[4:])
    assert first.parts[4:] == ("words:embedding", "agreement")
    chosen = selection.chosen
    assert {"good", "tags:logits"} <= set(chosen.parts)
    assert "bad" in chosen.dropped
    # What agrees is computed of the spaces that are left.
    smaller = FeatureBuilder(
        [name for name in ("good",) if name in chosen.parts],
        [name for name in ("tags:logits", "level:embedding") if name in chosen.parts],
        n_components=2,
        text_auxiliary=[name for name in ("words:embedding",) if name in chosen.parts],
        agreement="agreement" in chosen.parts,
    )
    stacker = clone(PAPER).set_params(left_out=chosen.left_out).fit(smaller.fit_transform(X), y)
    assert chosen.srcc == pytest.approx(srcc(y, stacker.oof_scores_), abs=1e-9)


def test_agreement_goes_with_the_last_space(embeddings) -> None:
    X, y = embeddings
    builder = FeatureBuilder(["bad"], ["tags:logits"], n_components=2)
    selection = select_stack(X, y, builder=builder, stacker=PAPER, presets=["paper"])
    assert selection.chosen.parts == ("tags:logits",)
    assert selection.chosen.n_spaces == 0
    assert all(one.n_spaces or "agreement" not in one.parts for one in selection.candidates)


def test_one_part_leaves_presets_and_learners_to_compare(table: Problem) -> None:
    X, y, groups = table
    selection = select_stack(X.select(["informative"]), y, groups, stacker=PAPER)
    assert selection.n_fits == 2
    assert {one.preset for one in selection.candidates} == {"best", "paper"}
    assert all(one.parts == ("informative",) for one in selection.candidates)
    kinds = {one.left_out for one in selection.candidates if one.left_out}
    n_kinds = 3 if selection.chosen.preset == "best" else 2
    assert len(kinds) == 2**n_kinds - 2


def test_presets_have_the_same_folds_and_learners_of_the_caller_stay(table: Problem) -> None:
    X, y, _ = table
    stacker = Stacker(
        added_learners=[("ridge of mine", LinearRegression())],
        random_state=3,
        left_out=["boosting"],
    )
    selection = select_stack(X.select(["helpful"]), y, stacker=stacker)
    assert (selection.n_splits, selection.n_groups) == (5, None)
    for one in selection.candidates:
        other = clone(stacker).set_params(preset=one.preset, left_out=one.left_out, n_splits=5)
        other.fit(X.select(["helpful"]), y)
        assert "ridge of mine/score" in other.level0_names_
        assert one.srcc == pytest.approx(srcc(y, other.oof_scores_), abs=1e-9)


def test_it_reads_as_a_table_and_as_csv(selection: Selection) -> None:
    text = selection.to_markdown()
    assert repr(selection) == text
    assert "160 training pairs in 80 groups, 3 folds" in text
    assert f"| {selection.chosen.name} |" in text
    assert f"Chosen: {selection.chosen.name!r}" in text
    assert "No other set was looked at" in text
    assert "80 groups are few" in text
    assert selection._repr_html_().startswith("<table>")
    header, *rows = csv.reader(selection.to_csv().splitlines())
    assert len(rows) == len(selection.candidates)
    records = [dict(zip(header, row, strict=True)) for row in rows]
    assert [r["stack"] for r in records if r["is_chosen"] == "1"] == [selection.chosen.name]
    assert float(records[0]["SRCC"]) == pytest.approx(selection.best.srcc, abs=1e-6)


def test_the_same_seed_chooses_the_same(table: Problem, selection: Selection) -> None:
    again = select_stack(*table, stacker=PAPER, presets=["paper"])
    assert again.to_csv() == selection.to_csv()


def test_mistakes_are_told(table: Problem, embeddings) -> None:
    X, y, _ = table
    with pytest.raises(StackingError, match="all scores are equal"):
        select_stack(X, np.ones(160))
    with pytest.raises(StackingError, match=r"PairEmbeddings.*builder=FeatureBuilder"):
        select_stack(*embeddings)
    with pytest.raises(StackingError, match="FeatureTable already"):
        select_stack(X, y, builder=FeatureBuilder(["good"]))
    with pytest.raises(StackingError, match="added_learners"):
        select_stack(X, y, stacker=Stacker([("linear", LinearRegression())]))
    with pytest.raises(StackingError, match="presets must be a list"):
        select_stack(X, y, presets="best")
    with pytest.raises(StackingError, match=r"presets must be one of .*'papper'"):
        select_stack(X, y, presets=["papper"])
    with pytest.raises(StackingError, match="5 folds need at least 5 groups"):
        select_stack(X, y, np.arange(160) % 4)
