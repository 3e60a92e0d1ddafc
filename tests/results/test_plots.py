"""The geometry of the plots: no name stands over a mark, an axis or another name."""

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from xacle_stack.errors import MetricError
from xacle_stack.metrics import Estimate, Evaluation
from xacle_stack.results import (
    PUBLISHED,
    LearningCurve,
    Result,
    plot_difference,
    plot_human_and_predicted,
    plot_learning_curve,
    plot_srcc,
    plot_srcc_and_mse,
    plot_two_splits,
    svg_of,
    write_plots,
)

FEW = ["stack", "cosine of mini-mel", "transformer"]
MANY = [f"laion-clap-unfused + ms-clap-2023 + space {number}, rank target" for number in range(25)]


def make_results(
    names: list[str], splits: tuple[str, ...] = ("validation", "test"), spread: float = 0.3
) -> list[Result]:
    """Results whose SRCC lie in a range of a width of `spread`; the first is the reference."""
    rng = np.random.default_rng(0)
    found = []
    for split in splits:
        for number, name in enumerate(names):
            srcc = 0.8 - spread * rng.random()
            mse = 3 + 10 * spread * rng.random()
            evaluation = Evaluation(
                *[Estimate(srcc, srcc - 0.04, srcc + 0.03)] * 3,
                mse=Estimate(mse, mse - 0.3, mse + 0.3),
                n_pairs=500,
                confidence=0.95,
            )
            gain = Estimate(0.02, -0.01, 0.05) if number else None
            found.append(Result(name, split, "stack", evaluation, difference=gain))
    return found


CASES = {
    "few": make_results(FEW),
    "one split": make_results(FEW, ("test",)),
    "many": make_results(MANY),
    "many, one split": make_results(MANY, ("test",)),
    "equal": make_results(FEW, spread=0.0),
    "nearly equal": make_results(MANY[:9], spread=1e-4),
    "published": [*make_results(FEW), *PUBLISHED],
}
PLOTS = [plot_srcc, plot_difference, plot_srcc_and_mse, plot_two_splits]


def extent(text: Text) -> Bbox:
    """Where a text stands, without the line that leads from an annotation to its point."""
    return Text.get_window_extent(text)


def check_geometry(ax: Axes) -> None:
    figure = ax.get_figure(root=True)
    figure.draw_without_rendering()
    page, frame = figure.bbox, ax.get_window_extent()
    labels = [(text.get_text(), extent(text)) for text in ax.texts]
    low, high = sorted(ax.get_ylim())
    others = [tick for tick in ax.get_yticklabels() if low <= tick.get_position()[1] <= high]
    title = ax.get_title(loc="left")
    others += ax.findobj(lambda artist: isinstance(artist, Text) and artist.get_text() == title)
    others += [ax.xaxis.label, ax.yaxis.label]
    shown = [(text.get_text(), extent(text)) for text in others if text.get_text()]
    for name, box in [*labels, *shown]:
        assert page.padded(1).contains(box.x0, box.y0), f"{name!r} leaves the page"
        assert page.padded(1).contains(box.x1, box.y1), f"{name!r} leaves the page"
    for (name, one), (other_name, other) in combinations(labels, 2):
        width = min(one.x1, other.x1) - max(one.x0, other.x0)
        height = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(width, height) < 1.5, f"{name!r} and {other_name!r} collide"
    lines = [ax.transData.transform(line.get_xydata()) for line in ax.lines]
    for name, box in labels:
        for line in lines:
            for x, y in np.linspace(line[0], line[-1], 200):
                assert not box.contains(x, y), f"{name!r} stands over a mark"
        assert not box.x0 < frame.x0 < box.x1, f"{name!r} stands over an axis"
        assert not (box.x0 < frame.x1 and box.y0 < frame.y0 < box.y1), f"{name!r} is over an axis"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
def test_no_name_collides(plot, case: str) -> None:
    if plot is plot_two_splits and "one split" in case:
        pytest.skip("needs two splits")
    check_geometry(plot(CASES[case]))


@pytest.mark.parametrize("change", [0.1, 0.0, -0.1, math.nan])
def test_numbers_of_a_learning_curve_stand_beside_its_marks(change: float) -> None:
    srcc = [0.5 + number * change for number in range(4)]
    curve = LearningCurve(
        (25, 50, 100, 200), tuple(Estimate(x, x - 0.1, x + 0.1) for x in srcc), None
    )
    result = replace(CASES["few"][0], learning_curve=curve)
    check_geometry(plot_learning_curve([result]))
    with pytest.raises(MetricError, match="cross_validate"):
        plot_learning_curve(CASES["few"])


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
def test_a_plot_goes_into_the_axes_that_it_is_given(plot) -> None:
    left, right = Figure(figsize=(14, 5), layout="constrained").subplots(1, 2)
    assert plot(CASES["few"], ax=right) is right
    assert right.get_title(loc="left")
    assert right.get_xlabel()
    assert not left.lines


def test_titles_state_the_finding() -> None:
    results = make_results(FEW)
    test = [result for result in results if result.split == "test"]
    best = max(test, key=lambda result: float(result.evaluation.srcc))
    title = plot_srcc(results).get_title(loc="left")
    assert title == f"{best.system} has the highest SRCC on test: {best.evaluation.srcc}"
    assert "No system is clearly better than stack" in plot_difference(results).get_title("left")
    above = [
        replace(result, difference=result.difference and Estimate(0.02, 0.01, 0.05))
        for result in results
    ]
    assert "2 of 2 systems are clearly better" in plot_difference(above).get_title("left")
    assert best.system in plot_srcc_and_mse(results).get_title(loc="left")


def test_every_number_stands_beside_its_row() -> None:
    results = make_results(FEW)
    shown = [text.get_text() for text in plot_srcc(results).texts]
    assert all(str(result.evaluation.srcc) in shown for result in results)
    shown = [text.get_text() for text in plot_difference(results).texts]
    assert shown.count("+.020 [-.010, +.050]") == 4


def test_published_results_stand_below_the_others() -> None:
    ax = plot_srcc(CASES["published"])
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert [name.startswith("published: ") for name in names] == sorted(
        name.startswith("published: ") for name in names
    )
    assert names.index("published: first of the challenge") == len(FEW)
    low, high = ax.get_ylim()
    assert low > high  # the first row is at the top


def test_a_system_that_chose_its_epoch_on_a_split_is_marked() -> None:
    first, *others = make_results(FEW)
    ax = plot_srcc([replace(first, chose_epoch_here=True), *others])
    assert [label.get_text() for label in ax.get_yticklabels()].count("stack †") == 1
    assert "† chose its epoch on validation" in ax.get_xlabel()


def test_an_undefined_correlation_has_no_mark() -> None:
    first, *others = make_results(FEW, ("test",))
    metrics = [Estimate(float("nan"), float("nan"), float("nan"))] * 3
    evaluation = Evaluation(*metrics, mse=first.evaluation.mse, n_pairs=5, confidence=0.95)
    results = [replace(first, evaluation=evaluation), *others]
    ax = plot_srcc(results)
    check_geometry(ax)
    assert "nan" in [text.get_text() for text in ax.texts]
    assert len(plot_srcc_and_mse(results).texts) == 2


def test_a_name_is_no_formula() -> None:
    ax = plot_srcc(make_results(["a $x_1$\nb", "other"]))
    ax.get_figure(root=True).draw_without_rendering()
    assert r"a \$x_1\$\nb" in [label.get_text() for label in ax.get_yticklabels()]


def test_there_is_no_difference_without_a_reference() -> None:
    alone = make_results(["stack"])
    with pytest.raises(MetricError, match=r"from_scores"):
        plot_difference(alone)


def test_the_files(tmp_path: Path) -> None:
    names = ["srcc.png", "srcc-mse.png", "validation-test.png", "difference.png"]
    paths = write_plots(CASES["few"], tmp_path)
    assert [path.name for path in paths] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    (tmp_path / "one").mkdir()
    paths = write_plots(make_results(["stack"], ("test",)), tmp_path / "one")
    assert [path.name for path in paths] == names[:2]


@pytest.mark.parametrize("n_pairs", [3, 200])
def test_every_pair_is_a_mark_at_its_human_and_predicted_score(
    n_pairs: int, rng: np.random.Generator
) -> None:
    human, predicted = rng.uniform(0, 10, (2, n_pairs))
    ax = plot_human_and_predicted(human, predicted, split="test")
    _, pairs, *means = ax.get_lines()  # the first is the diagonal
    np.testing.assert_array_equal(pairs.get_xydata(), np.column_stack([human, predicted]))
    assert ax.get_title(loc="left").startswith("test: ")
    assert len(means) == (n_pairs >= 50)
    for tenths in means:
        x, y = tenths.get_xydata().T
        np.testing.assert_allclose([x.mean(), y.mean()], [human.mean(), predicted.mean()])
        assert (np.diff(y) > 0).all()


def test_a_plot_as_svg_is_the_same_text_every_time_and_has_no_background() -> None:
    first, again = (svg_of(plot_human_and_predicted([1, 9], [2, 8])) for _ in range(2))
    assert first == again
    assert first.rstrip().endswith("</svg>")
    assert "fill: #ffffff" not in first
