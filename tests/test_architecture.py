"""The import order of CONTRIBUTING.md: imports only descend, ranks never import sideways."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xacle_stack

PACKAGE = Path(xacle_stack.__file__).parent
RANKS = {
    "errors": 0,
    "_optional": 0,
    "_types": 0,
    "_files": 0,
    "_folder_draft": 0,
    "_printable": 0,
    "_csv_table": 0,
    "_audio_source": 0,
    "_container_audio": 0,
    "_workers": 0,
    "_tasks": 0,
    "_progress": 0,
    "_rows": 0,
    "_threads": 0,
    "_state_checks": 0,
    "_large_arrays": 0,
    "_validation": 1,
    "pairs": 2,
    "audio": 1,
    "metrics": 1,
    "listeners": 1,
    "streamed_svd": 1,
    "synth": 1,
    "encoders": 3,
    "cache": 3,
    "submission": 3,
    "results": 3,
    "table": 3,
    "extract": 4,
    "features": 5,
    "stacking": 6,
    "systems": 7,
    "data_facts": 8,
    "model_file": 8,
    "recipe_file": 8,
    "run_folder": 9,
    "recipe": 9,
    "targets": 10,
    "prediction": 10,
    "run_record": 10,
    "scorer": 11,
    "cross_validation": 12,
    "pseudo_labels": 12,
    "captions": 12,
    "rating": 12,
    "pretraining": 13,
    "experiment": 14,
    "service": 14,
    "cli": 15,
}
# Within rank 0, nothing but errors and the safe form of names is imported.
ALLOWED_SIDEWAYS = {
    ("_optional", "errors"),
    ("_csv_table", "errors"),
    ("_csv_table", "_files"),
    ("_folder_draft", "_files"),
    ("_audio_source", "errors"),
    ("_container_audio", "errors"),
    ("_container_audio", "_optional"),
    ("_container_audio", "_types"),
    ("_workers", "errors"),
    ("_tasks", "errors"),
    ("_tasks", "_files"),
    ("_tasks", "_workers"),
    ("_progress", "_printable"),
    ("_state_checks", "errors"),
    ("_large_arrays", "errors"),
    ("_rows", "errors"),
    ("_rows", "_types"),
}


def part_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "xacle_stack":
        return None
    # `from xacle_stack import cli` would hide which part it means.
    assert len(parts) > 1, "import from the part, not from the package"
    return parts[1]


def imports() -> list[tuple[str, str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        importer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if importer == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            found += [(importer, imported, path) for name in names if (imported := part_of(name))]
    return found


def test_every_module_has_a_rank() -> None:
    parts = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")
    }
    assert parts - {"__init__"} == set(RANKS)


def test_imports_only_descend() -> None:
    climbing = [
        f"{path.relative_to(PACKAGE)} imports {imported}"
        for importer, imported, path in imports()
        if importer != imported
        and RANKS[imported] >= RANKS[importer]
        and (importer, imported) not in ALLOWED_SIDEWAYS
    ]
    assert climbing == []


def module_graph() -> dict[str, set[str]]:
    """Return the modules that each module imports, those for type checking included."""
    paths = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in PACKAGE.rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        imported = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    imported.add(name if name in paths else node.module)
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
        graph[module] = (imported & set(paths)) - {module, "xacle_stack"}
    return graph


def test_no_two_modules_import_each_other() -> None:
    graph = module_graph()
    reachable = {module: set(imported) for module, imported in graph.items()}
    for _ in graph:
        for imported in reachable.values():
            imported |= set().union(*(reachable[name] for name in imported))
    cycles = {
        frozenset(
            name.removeprefix("xacle_stack.")
            for name in imported
            if module in imported and module in reachable[name]
        )
        for module, imported in reachable.items()
    }
    assert [set(cycle) for cycle in cycles if cycle] == []


@pytest.mark.parametrize(
    ("part", "stranger"),
    [("stacking", "h5py"), ("features/pair.py", "h5py"), ("features/agreement.py", "h5py")],
)
def test_arrays_have_never_heard_of_files(part: str, stranger: str) -> None:
    code = f"import sys, xacle_stack.stacking; sys.exit({stranger!r} in sys.modules)"
    if part == "stacking":
        subprocess.run([sys.executable, "-c", code], check=True)
    for path in [PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).glob("*.py"):
        assert not re.search(rf"(import|from) {stranger}\b", path.read_text("utf-8"))


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = """
import sys
import xacle_stack
heavy = {"numpy", "scipy", "sklearn", "h5py", "lightgbm", "torch", "soundfile", "pydantic"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_what_they_say() -> None:
    for name in xacle_stack.__all__:
        assert getattr(xacle_stack, name).__name__ == name
    assert dir(xacle_stack) == xacle_stack.__all__ == sorted(xacle_stack._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'Stackr'"):
        xacle_stack.Stackr


def test_no_module_is_a_drawer() -> None:
    names = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not names & {"utils", "util", "common", "helpers", "misc"}
