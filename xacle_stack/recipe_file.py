"""The file of a recipe: TOML by anybody, read with limits, its paths relative to its folder."""

import math
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xacle_stack._printable import printable_name
from xacle_stack.errors import RecipeError, bullet_list

# Where the project keeps its recipes, seen from its root.
RECIPES = Path("features/recipes")
# No recipe is longer, and the time that TOML takes to read may grow with the square.
MAX_BYTES = 16_384
# Below the largest random state, and more than any size or number of something.
MAX_INT = 2**31 - 1


def read_settings(path: Path) -> dict[str, Any]:
    """Return a recipe's settings, not checked yet, with its name and absolute paths.

    Raises
    ------
    RecipeError
        If it is no TOML file, or holds control characters or numbers that no setting takes.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never end
            raise RecipeError(f"{path}: this is not a regular file. Give the path of a TOML file.")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RecipeError(
                f"{path}: it has more than {MAX_BYTES:,} bytes. No recipe is so long."
            )
        settings = tomllib.loads(content.decode())
    except FileNotFoundError:
        known = sorted(str(recipe) for recipe in RECIPES.glob("*.toml"))
        hint = f" There are: {', '.join(known)}." if known else " Check the path."
        raise RecipeError(f"{path}: no such recipe.{hint}") from None
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
        raise RecipeError(
            f"{source}: {len(strange)} mistake(s) in the recipe:\n{bullet_list(strange)}"
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
        file, colon, rest = value.partition(".py:")
        there = folder / (f"{file}.py" if colon else value)
        return f"{there}{':' + rest if colon else ''}" if there.exists() else value

    def of_system(system: object) -> object:
        if not isinstance(system, dict):
            return system
        named = {key: absolute(system[key]) for key in ("space", "frames", "text") if key in system}
        if isinstance(system.get("spaces"), list):
            named["spaces"] = [absolute(space) for space in system["spaces"]]
        return {**system, **named}

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
