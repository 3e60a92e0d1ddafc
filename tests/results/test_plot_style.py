import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from xacle_stack.metrics import Estimate
from xacle_stack.results.plot_style import (
    GREY,
    SERIES_STYLES,
    draw_dot_rows,
    figure_of,
    label_points,
    new_axes,
    set_finding,
    style_axes,
)


def test_the_rows_of_a_figure_keep_their_own_widths() -> None:
    above, below = new_axes(6, 6, 2)
    figure = figure_of(above)
    assert figure_of(below) is figure
    before = below.get_window_extent().width
    figure.draw_without_rendering()
    label_points(above, [(0.0, y / 100) for y in range(40)], ["a rather long name"] * 40)
    figure.draw_without_rendering()
    assert below.get_window_extent().width > above.get_window_extent().width + 50
    assert below.get_window_extent().width == pytest.approx(before, rel=0.2)


def test_series_differ_without_their_colours() -> None:
    looks = {(style.marker, style.is_filled) for style in SERIES_STYLES}
    assert len(looks) == len(SERIES_STYLES)
    assert len({style.glyph for style in SERIES_STYLES}) == len(SERIES_STYLES)


def test_a_long_finding_takes_several_lines_within_the_figure() -> None:
    (ax,) = new_axes(4, 3)
    set_finding(ax, "a finding of many words " * 8)
    lines = ax.get_title(loc="left").splitlines()
    assert len(lines) > 2
    assert " ".join(lines) == ("a finding of many words " * 8).strip()


def test_names_stand_beside_their_points_only_if_all_have_room() -> None:
    (ax,) = new_axes(8, 4)
    style_axes(ax, x_label="x", y_label="y")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    label_points(ax, [(0.2, 0.2), (0.7, 0.7)], ["one", "other"], muted=[1])
    assert [text.get_unitless_position()[0] < 100 for text in ax.texts] == [True, True]
    assert [text.get_color() == GREY for text in ax.texts] == [False, True]
    assert all(text.arrow_patch is None for text in ax.texts)
    (ax,) = new_axes(8, 4)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    label_points(ax, [(0.5, 0.5)] * 9, list("abcdefghi"))
    heights = [text.get_unitless_position()[1] for text in ax.texts]
    assert all(text.arrow_patch is not None for text in ax.texts)
    assert min(abs(a - b) for a in heights for b in heights if a != b) > 0.04
    # Of points at the same height, the first is named at the top.
    names = [text.get_text() for text in sorted(ax.texts, key=lambda t: -t.get_position()[1])]
    assert names == list("abcdefghi")


def test_rows_without_an_estimate_have_no_mark() -> None:
    ax = Figure(figsize=(6, 3), layout="constrained").subplots()
    one = Estimate(0.5, 0.4, 0.6)
    draw_dot_rows(ax, ["a", "b"], {"first": [one, None], "second": [None, one]})
    marks = [line for line in ax.lines if line.get_linestyle() == "None"]
    assert len(marks) == 2
    assert {text.get_text() for text in ax.texts} >= {"◇ first", "● second", ".500 [.400, .600]"}


def test_numbers_of_differences_have_signs() -> None:
    ax = Figure(figsize=(6, 3), layout="constrained").subplots()
    draw_dot_rows(ax, ["a"], {"gain": [Estimate(0.5, -0.1, 0.6)]}, signed=True)
    assert "+.500 [-.100, +.600]" in [text.get_text() for text in ax.texts]
