"""A table of texts: for a terminal, as Markdown and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xacle_stack._printable import printable_name

# What may begin or end code, emphasis, a cell, an entity, or the target of a link.
_MARKUP = re.compile(r"[\\`*~|&]|(?<!\w)_|_(?!\w)|(?<=\])\(")

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table


@dataclass(frozen=True)
class TextTable:
    r"""A title, a header, rows of texts, and notes below.

    In a terminal no cell wraps: where there is too little room, texts of the first column lose
    their end.

    Attributes
    ----------
    title : str
    header : sequence of str
    rows : sequence of sequence of str
    notes : sequence of str

    Examples
    --------
    >>> print(TextTable("Scores", ["generator", "mean"], [["A|B", "7.1"]]).to_markdown())
    ## Scores
    <BLANKLINE>
    | generator | mean |
    | --- | --- |
    | A\|B | 7.1 |
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def to_markdown(self) -> str:
        """Return a section with the table and its notes."""
        lines = [f"## {self.title}", "", *markdown_rows(self.header, self.rows)]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines)

    def to_html(self) -> str:
        """Return a table with a caption, and paragraphs for the notes, without styles."""
        parts = ["<table>", f"<caption>{html.escape(self.title)}</caption>"]
        parts += [f"<thead>{_html_row('th', self.header)}</thead>", "<tbody>"]
        parts += [_html_row("td", cells) for cells in self.rows]
        parts += ["</tbody>", "</table>"]
        parts += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        return "\n".join(parts)

    def _rich_table(self, first_width: int) -> Table:
        from rich import box
        from rich.table import Column, Table
        from rich.text import Text

        first, *others = self.header
        table = Table(
            Column(first, no_wrap=True, overflow="ellipsis", max_width=first_width),
            *(Column(name, no_wrap=True) for name in others),
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            title=self.title,
            title_justify="left",
        )
        for cells in self.rows:
            table.add_row(*(Text(printable_name(cell)) for cell in cells))
        return table

    def _repr_html_(self) -> str:
        return self.to_html()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield the table and its notes."""
        from rich.text import Text

        n_left = options.max_width - table_width(console, self._rich_table(first_width=1)) + 1
        yield self._rich_table(first_width=max(n_left, 1))
        for note in self.notes:
            yield Text(note)


def table_width(console: Console, table: Table) -> int:
    """Return how wide a table is where there is room for all of it."""
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def markdown_rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown, in which nothing of the texts is markup."""
    for cells in (map(markdown_text, header), ["---"] * len(header)):
        yield f"| {' | '.join(cells)} |"
    for row in rows:
        yield f"| {' | '.join(map(markdown_text, row))} |"


def markdown_text(text: str) -> str:
    r"""Return a text as one line of Markdown, or a part of one, in which nothing of it is markup.

    It must not stand at the beginning of a line, where ``#`` or ``1.`` would mean something.

    Examples
    --------
    >>> print(markdown_text("a|b <i> `c` snake_case [x](y)"))
    a\|b &lt;i> \`c\` snake_case [x]\(y)
    """
    return _MARKUP.sub(lambda found: f"\\{found[0]}", printable_name(text)).replace("<", "&lt;")


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
