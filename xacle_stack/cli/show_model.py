"""``xacle-stack show``: the card of a saved model."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.show import console


def show(
    model: Annotated[Path, typer.Argument(help="A saved model, or the folder of model.skops.")],
) -> None:
    """Print what a saved model says of itself, in Markdown, without opening the model."""
    from xacle_stack.model_file import card_markdown, load_card
    from xacle_stack.model_file.card import model_path

    console.print(card_markdown(load_card(model), model_path(model)), end="", soft_wrap=True)
