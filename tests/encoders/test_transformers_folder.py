import json
import os
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
    with pytest.raises(EncoderError, match="size is 3, expected 4"):
        check_settings("encoder 'e'", tmp_path, config, size=4)


def test_settings_by_which_transformers_fetches_code_are_left_out(tmp_path: Path) -> None:
    evil = {
        "_attn_implementation": "evil/kernel",
        "attn_implementation": "evil/kernel",
        "auto_map": {"AutoModel": "evil--modeling.Evil"},
        "quantization_config": {"quant_method": "evil"},
        "_name_or_path": "evil/model",
    }
    settings = {"model_type": "ear", "size": 3, "parts": [{"size": 4, **evil}], **evil}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = read_config("encoder 'e'", tmp_path, Config)
    assert vars(config) == {"model_type": "ear", "size": 3, "parts": [{"size": 4}], "double": 6}
    (tmp_path / "vocab.json").write_text('{"_": 1}')  # whose keys are words
    assert read_json("encoder 'e'", tmp_path, "vocab.json") == {"_": 1}


def test_real_configurations_lose_them_too(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    settings = {"model_type": "clap", "text_config": {"_attn_implementation": "evil/kernel"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = read_config("encoder 'e'", tmp_path, transformers.ClapConfig)
    assert "evil" not in str(vars(config)) + str(vars(config.text_config))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"num_hidden_layers": 1000000000}', "num_hidden_layers is 1000000000, and no model"),
        ('{"vocab_size": 100000000000}', "vocab_size is 100000000000, and no model"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_no_model_has_is_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(EncoderError, match=f"config.json .*JSON: .*{message}"):
        read_config("encoder 'e'", tmp_path, Config)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in a folder")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(EncoderError, match="67108864 bytes|regular file"):
        read_config("encoder 'e'", tmp_path, Config)


def test_another_models_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "eye"}')
    with pytest.raises(EncoderError, match="'e': .*'eye'.*'ear'"):
        read_config("encoder 'e'", tmp_path, Config)
    for content in ("[]", "{}"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(EncoderError, match="None.*'ear'"):
            read_config("encoder 'e'", tmp_path, Config)


def test_unusable_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="config.json .*No such file"):
        read_config("encoder 'e'", tmp_path, Config)
    (tmp_path / "config.json").write_text('{"model_type"')
    with pytest.raises(EncoderError, match="config.json .*JSON"):
        read_config("encoder 'e'", tmp_path, Config)
    with pytest.raises(EncoderError, match="is a file.*folder"):
        read_json("encoder 'e'", tmp_path / "config.json", "vocab.json")
    (tmp_path / "config.json").write_text('{"model_type": "ear"}')
    with pytest.raises(EncoderError, match=r"not a configuration .*KeyError: 'size'"):
        read_config("encoder 'e'", tmp_path, Config)
