"""The figures in the README, docs/ and benchmarks/README.md are those of benchmarks/results/."""

from pathlib import Path

import figures
import pytest

PAGES = [figures.README, figures.BENCHMARKS, *figures.DOCS]


def test_every_listed_figure_is_that_of_its_file() -> None:
    found = figures.differences()
    assert not found, "\n".join(["Run: python benchmarks/figures.py", *map(str, found)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_no_page_has_a_figure_that_comes_from_no_file(page: Path) -> None:
    found = figures.unlisted(page, page.read_text(encoding="utf-8"), figures.sentences()[page])
    assert not found, "\n".join(["Take these out, or list them in benchmarks/figures.py:", *found])


@pytest.mark.parametrize(
    "text",
    [
        "reaches .745",
        "an MSE of 6.11",
        "after half a minute",
        "takes two hours",
        "within 6e-13",
        "took 22 s",
        "needs 1.5 GiB",
        "84 % of it",
        "| `best` | 61 |",
        "```bash\nmake stack  # half a minute\n```",
    ],
)
def test_what_looks_like_a_figure_has_to_be_listed(text: str) -> None:
    assert figures.unlisted(figures.README, text, [])


def test_a_figure_is_found_and_written_whatever_the_line_breaks_and_bold_type(
    tmp_path: Path, monkeypatch
) -> None:
    page = tmp_path / "README.md"
    page.write_text("The stack reaches an\nSRCC of **.75 [.67,\n.80]**, in 7 steps.\n", "utf-8")
    sentence = f"reaches an SRCC of {figures.interval([0.7448, 0.6691, 0.8008])}, in"
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "sentences", lambda: {page: [sentence]})
    assert [str(found) for found in figures.write_pages()] == [
        "README.md:2: '.75' should be '.745' in “reaches an SRCC of .745 [.669, .801], in”",
        "README.md:2: '.67' should be '.669' in “reaches an SRCC of .745 [.669, .801], in”",
        "README.md:3: '.80' should be '.801' in “reaches an SRCC of .745 [.669, .801], in”",
    ]
    expected = "The stack reaches an\nSRCC of **.745 [.669,\n.801]**, in 7 steps.\n"
    assert page.read_text("utf-8") == expected
    assert figures.unlisted(page, expected, [sentence]) == []
    with pytest.raises(figures.StaleFigureError, match=r"0 times"):
        figures.find_sentence(page, expected, "no such " + sentence)


def test_the_picture_of_esc10_is_made_from_the_figures_beside_it() -> None:
    picture = (figures.RESULTS / "esc10.png").read_bytes()
    assert figures.digest_of("esc10").encode() in picture, "Run: python benchmarks/bench_esc10.py"
