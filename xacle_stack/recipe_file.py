"""Finds the file of a recipe and reads it.

A recipe may come from anybody: it is TOML that is read with limits.  The paths in it are relative
to its folder.
"""

import difflib
import math
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xacle_stack._files import is_regular_file
from xacle_stack._printable import printable_name
from xacle_stack.encoders import TEXT_PREFIX, split_text_output
from xacle_stack.errors import RecipeError, bullet_list

# A wheel has the recipes inside the package; a source tree has them beside it.
_PACKAGE = Path(__file__).parent
_RECIPE_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "features" / "recipes")
# No recipe is longer, and the time that TOML takes to read may grow with the square.
MAX_BYTES = 16_384
# The settings of a system, and of a stage of one, that name encoders, files or folders.
_PLACES_OF_SYSTEM = ("space", "frames", "text", "tokens", "language_model", "data", "teacher")
_STAGES = ("captioning", "pseudo_labels")
# Below the largest random state, and more than any size or number of something.
MAX_INT = 2**31 - 1


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with this library, by name."""
    for folder in _RECIPE_FOLDERS:
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return {}


def recipe_path(name_or_path: str | Path) -> Path:
    """Return the file of a recipe that is given by its name or its path.

    Parameters
    ----------
    name_or_path : str or path-like
        A bare name such as ``"paper"`` is always a recipe that comes with this library, whatever
        files there are in the working directory.  Anything with a folder or ``.toml`` in it, such
        as ``"./paper"`` or ``"paper.toml"``, is a path.

    Returns
    -------
    path : Path
        A path that was given is returned as it is, whether or not there is such a file.

    Raises
    ------
    RecipeError
        If no recipe of this name comes with this library.

    Examples
    --------
    >>> recipe_path("paper").name
    'paper.toml'
    """
    text = os.fspath(name_or_path)
    path = Path(text)
    if path.name != text or path.suffix == ".toml":
        return path
    shipped = shipped_recipes()
    if text not in shipped:
        raise _no_such_recipe(path)
    return shipped[text]


def _no_such_recipe(path: Path) -> RecipeError:
    shipped = list(shipped_recipes())
    near = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return RecipeError(
        f"{printable_name(str(path))}: no such recipe.{hint} Give the path of a TOML file, such as "
        f"'./mine.toml', or the name of a recipe that comes with xacle_stack: {', '.join(shipped)}."
    )


def read_settings(path: Path) -> dict[str, Any]:
    """Return a recipe's settings, not checked yet, with its name and absolute paths.

    Raises
    ------
    RecipeError
        If it is no TOML file, or holds control characters or numbers that no setting takes.
    """
    try:
        if not is_regular_file(path):  # a pipe may never end
            raise RecipeError(f"{path}: this is not a regular file. Give the path of a TOML file.")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RecipeError(
                f"{path}: it has more than {MAX_BYTES:,} bytes, which no recipe needs. Check that "
                "the path is that of a recipe."
            )
        settings = tomllib.loads(content.decode())
    except FileNotFoundError:
        raise _no_such_recipe(path) from None
    except RecursionError:
        raise RecipeError(f"{path}: not readable as a TOML file: nested too deeply.") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:  # also of a number with thousands of digits
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{path}: not readable as a TOML file: {error}.") from None
    if "name" in settings:
        raise RecipeError(f"{path}: 'name' is not a setting: a recipe is called like its file.")
    check_values(settings, str(path))
    return _beside(path.resolve().parent, settings) | {"name": path.stem}


def check_values(settings: object, source: str) -> None:
    """Check that nothing in some settings is what no setting takes, whatever it is called.

    Raises
    ------
    RecipeError
        If there are control characters, or numbers beyond what any setting takes.
    """
    strange = [*_strange_values(settings)]
    if strange:
        raise mistakes_error(source, strange)


def mistakes_error(source: str, mistakes: list[str]) -> RecipeError:
    """Return the error that lists a recipe's mistakes."""
    return RecipeError(
        f"{source}: {len(mistakes)} mistake(s) in the recipe:\n{bullet_list(mistakes)}"
    )


def _strange_values(settings: object) -> Iterator[str]:
    """Yield what is wrong with keys and values that no setting takes, however deep they are."""
    waiting = [settings]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and printable_name(value) != value:
            yield f"{value!r} holds control characters; take them out, or write \\\\ for one \\"
        elif isinstance(value, int | float) and not abs(value) <= MAX_INT:
            shown = value if math.isfinite(value) else f"{value}, no finite number,"
            yield f"{shown!s:.40} is beyond what any setting takes"


def _beside(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Make the paths absolute that are relative to the recipe's folder."""

    def absolute(value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.startswith(TEXT_PREFIX):
            encoder, output = split_text_output(value)
            place = absolute(encoder.removeprefix(TEXT_PREFIX))
            return f"{TEXT_PREFIX}{place}" + (f":{output}" if output else "")
        file, colon, rest = value.partition(".py:")
        there = folder / (f"{file}.py" if colon else value)
        return f"{there}{':' + rest if colon else ''}" if there.exists() else value

    def of_system(system: object) -> object:
        if not isinstance(system, dict):
            return system
        named: dict[str, object] = {
            key: absolute(system[key]) for key in _PLACES_OF_SYSTEM if key in system
        }
        for key in ("spaces", "spaces_a", "spaces_b"):
            if isinstance(system.get(key), list):
                named[key] = [absolute(space) for space in system[key]]
        stages = {key: of_system(system[key]) for key in _STAGES if key in system}
        return {**system, **named, **stages}

    found = dict(settings)
    for key in ("spaces", "auxiliary"):
        if isinstance(found.get(key), list):
            found[key] = [absolute(value) for value in found[key]]
    for key in ("checkpoints", "code", "views"):
        if isinstance(found.get(key), dict):
            found[key] = {absolute(name): absolute(value) for name, value in found[key].items()}
    systems = found.get("systems")
    if isinstance(systems, dict):
        found["systems"] = {name: of_system(one) for name, one in systems.items()}
    return found
