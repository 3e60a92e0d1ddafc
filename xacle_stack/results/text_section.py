"""A section of a text: sentences, a table and code, as Markdown and on pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xacle_stack.results.text_table import markdown_rows, markdown_text


@dataclass(frozen=True)
class TextSection:
    r"""A title with sentences below it, then a table, then code, each of which may be missing.

    Nothing in it is markup.

    Attributes
    ----------
    title : str
    sentences : sequence of str
    header : sequence of str
    rows : sequence of sequence of str
    code : str
        In Python.

    Examples
    --------
    >>> print(TextSection("Name", ["It is called *a*."], code="print(1)").to_markdown())
    ## Name
    <BLANKLINE>
    It is called \*a\*.
    <BLANKLINE>
    ```python
    print(1)
    ```
    """

    title: str
    sentences: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    code: str = ""

    def to_markdown(self) -> str:
        """Return a section of the second level."""
        blocks = [f"## {markdown_text(self.title)}", *map(markdown_text, self.sentences)]
        if self.rows:
            blocks.append("\n".join(markdown_rows(self.header, self.rows)))
        if self.code:
            blocks.append(f"```python\n{self.code}\n```")
        return "\n\n".join(blocks)
