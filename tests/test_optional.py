import importlib
import sys
from pathlib import Path

import pytest

from xacle_stack._optional import require, stand_ins
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


def test_a_stand_in_takes_the_place_of_what_is_absent_or_broken(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_one.py").write_text("raise OSError('libcuda.so')")
    (tmp_path / "user_one.py").write_text(
        "import broken_one.compliance.kaldi as kaldi\n"
        "from absent_one import transforms\n"
        "from absent_one.transforms.functional import Mode\n"
        "class Mine(transforms.Resize): mode = Mode.NEAREST\n"
    )
    with stand_ins(["broken_one", "absent_one", "json"]):
        import user_one

        assert issubclass(user_one.Mine, object)
        import json

        assert json.dumps([1]) == "[1]"  # one that works is used
    assert not {"broken_one", "absent_one", "absent_one.transforms"} & set(sys.modules)
    with pytest.raises(OSError, match="libcuda"):
        importlib.import_module("broken_one")
