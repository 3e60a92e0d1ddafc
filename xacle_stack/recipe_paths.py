"""Paths in a recipe, which are relative to its folder."""

from pathlib import Path
from typing import Any


def beside(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
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
