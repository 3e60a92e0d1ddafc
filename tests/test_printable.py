import pytest

from xacle_stack._printable import printable, printable_name

CONTROLS = [chr(code) for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
TURNS = list("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@pytest.mark.parametrize("character", [*CONTROLS, *TURNS, "\u2028", "\u2029", "\udce9"], ids=ascii)
def test_no_control_character_is_left(character: str) -> None:
    assert printable(f"a{character}b") == f"a{ascii(character)[1:-1]}b"
    assert printable_name(f"a{character}b").isprintable()


def test_all_else_stays() -> None:
    text = "é, 雨の音, 👩‍🚒, – and \\x1b\n\tsecond line"
    assert printable(text) == text
    assert printable_name("a\nb\tc") == r"a\nb\tc"
