from xacle_stack.results.text_section import TextSection


def test_sentences_table_and_code_follow_the_title() -> None:
    text = TextSection("T|t", ["One *sentence*."], ["a"], [["<b>"]], "print('a')").to_markdown()
    assert text == (
        "## T\\|t\n\nOne \\*sentence\\*.\n\n| a |\n| --- |\n| &lt;b> |\n\n"
        "```python\nprint('a')\n```"
    )


def test_what_is_missing_leaves_no_gap() -> None:
    assert TextSection("Title").to_markdown() == "## Title"
