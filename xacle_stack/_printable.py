"""Makes foreign texts safe to print on a terminal."""

import re

# Control characters except tab and newline, marks that change the direction of writing, line
# separators, and surrogates, which stand for bytes that are not UTF-8.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return a message without characters that move the cursor or change what is read.

    Tabs and newlines are kept, because messages may have several lines.

    Examples
    --------
    >>> print(printable("\x1b[2J.wav: no such file"))
    \x1b[2J.wav: no such file
    """
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def printable_name(name: object) -> str:
    r"""Return a name in one line, without control characters.

    Examples
    --------
    >>> print(printable_name("two\nlines"))
    two\nlines
    """
    return printable(str(name).replace("\n", "\\n").replace("\t", "\\t"))


def short_name(name: str, max_chars: int) -> str:
    """Return a name without its middle if it is long: its beginning and its end tell most.

    Examples
    --------
    >>> short_name("laion-clap-fused, rank target", 15)
    'laion-c… target'
    """
    if len(name) <= max_chars:
        return name
    n_end = (max_chars - 1) // 2
    return f"{name[: max_chars - 1 - n_end]}…{name[len(name) - n_end :]}"
