import shutil
from pathlib import Path

import pytest
from hostile_models import X

from xacle_stack.model_file import save_model
from xacle_stack.stacking import Stacker


@pytest.fixture(scope="session")
def saved_once(tmp_path_factory) -> Path:
    """Return a saved stack that no test changes."""
    folder = tmp_path_factory.mktemp("saved")
    model = Stacker(n_splits=2, random_state=0, target="rank").fit(X, X[:, 0])
    return save_model(folder, model)


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    """Return a saved stack that a test may change."""
    for path in (saved_once, saved_once.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    return tmp_path / saved_once.name
