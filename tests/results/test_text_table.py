from rich.console import Console

from xacle_stack.results.text_table import TextTable

TABLE = TextTable("Title", ["name", "value"], [["<b>|", "1"], ["two\nlines", "2"]], ["A note."])


def test_nothing_of_a_cell_is_markup() -> None:
    assert "| &lt;b>\\| | 1 |" in TABLE.to_markdown()
    assert "<td>&lt;b&gt;|</td>" in TABLE.to_html()


def test_title_and_notes_stand_in_every_form() -> None:
    for text in (TABLE.to_markdown(), TABLE.to_html(), shown(80)):
        assert "Title" in text
        assert "A note." in text


def test_no_cell_wraps_on_a_narrow_terminal() -> None:
    table = TextTable("T", ["prompt", "score"], [["a long prompt " * 10, "7.31"]])
    console = Console(width=40, record=True, file=None)
    with console.capture() as capture:
        console.print(table)
    rows = [line for line in capture.get().splitlines() if "7.31" in line]
    assert len(rows) == 1
    assert len(rows[0]) <= 40
    assert "two\\nlines" in shown(80)


def shown(width: int) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(TABLE)
    return capture.get()
