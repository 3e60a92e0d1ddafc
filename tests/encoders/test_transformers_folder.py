from pathlib import Path
from types import SimpleNamespace

import pytest

from xacle_stack.encoders.transformers_folder import check_settings, read_config, read_json
from xacle_stack.errors import EncoderError


class Config(SimpleNamespace):
    model_type = "ear"

    @classmethod
    def from_dict(cls, settings: dict) -> "Config":
        return cls(**settings, double=2 * settings["size"])


def test_a_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "ear", "size": 3}')
    config = read_config("encoder 'e'", tmp_path, Config)
    assert config.double == 6
    check_settings("encoder 'e'", tmp_path, config, size=3)
    with pytest.raises(EncoderError, match="another model of its type: size is 3, expected 4"):
        check_settings("encoder 'e'", tmp_path, config, size=4)


def test_another_models_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "eye"}')
    with pytest.raises(EncoderError, match="encoder 'e': .* a model of type 'eye'; expected 'ear'"):
        read_config("encoder 'e'", tmp_path, Config)
    for content in ("[]", "{}"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(EncoderError, match="a model of type None; expected 'ear'"):
            read_config("encoder 'e'", tmp_path, Config)


def test_unusable_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="config.json cannot be read as JSON: .*No such file"):
        read_config("encoder 'e'", tmp_path, Config)
    (tmp_path / "config.json").write_text('{"model_type"')
    with pytest.raises(EncoderError, match="config.json cannot be read as JSON"):
        read_config("encoder 'e'", tmp_path, Config)
    with pytest.raises(EncoderError, match="is a file; expected the folder that holds it together"):
        read_json("encoder 'e'", tmp_path / "config.json", "vocab.json")
    (tmp_path / "config.json").write_text('{"model_type": "ear"}')
    with pytest.raises(EncoderError, match=r"no configuration of this model \(KeyError: 'size'\)"):
        read_config("encoder 'e'", tmp_path, Config)
