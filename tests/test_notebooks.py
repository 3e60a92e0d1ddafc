from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from xacle_stack.experiment import fill_cache
from xacle_stack.recipe import read_recipe
from xacle_stack.synth.demo import write_demo

ROOT = Path(__file__).parents[1]
N_FIGURES = {"explore_cache": 3, "fit_stack": 6}


def read_notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def data_and_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("notebooks")
    data = write_demo(folder / "data", n_pairs=120, seed=3)
    recipe = read_recipe(ROOT / "features" / "recipes" / "mini.toml")
    fill_cache(data, recipe, folder / "store", n_jobs=1, progress=False)
    return data, folder / "store"


def test_every_notebook_is_tested() -> None:
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(N_FIGURES)


@pytest.mark.parametrize("name", N_FIGURES)
def test_a_notebook_runs_quietly_and_draws(
    name: str,
    data_and_store: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, store = data_and_store
    monkeypatch.setenv("XACLE_DATA", str(data))
    monkeypatch.setenv("XACLE_STORE", str(store))
    # The kernel draws as it does in JupyterLab, whatever the machine's settings and start-up files.
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = read_notebook(name)
    where = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    complaints = [output.text for output in outputs if output.get("name") == "stderr"]
    assert complaints == []
    n_figures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert n_figures == N_FIGURES[name]


@pytest.mark.parametrize("name", N_FIGURES)
def test_a_notebook_is_committed_without_outputs(name: str) -> None:
    notebook = read_notebook(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"
