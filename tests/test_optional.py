import sys
from pathlib import Path

import pytest

from xacle_stack._optional import require
from xacle_stack.errors import MissingExtraError


def test_a_missing_package_names_the_command() -> None:
    with pytest.raises(MissingExtraError) as caught:
        require("no_such_package.part", extra="laion", purpose="the laion-clap encoder")
    assert str(caught.value) == (
        "the laion-clap encoder needs the package 'no_such_package', which is not installed. "
        "Install it with: pip install 'xacle-stack[laion]'"
    )


def test_a_broken_package_keeps_its_own_error(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "broken_package.py").write_text("import another_missing_package")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="another_missing_package") as caught:
        require("broken_package", extra="laion", purpose="a test")
    assert not isinstance(caught.value, MissingExtraError)
    sys.modules.pop("broken_package", None)
