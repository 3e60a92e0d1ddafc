from pathlib import Path

import numpy as np
import pytest
from random_checkpoints.laion_clap import HTSAT_BASE, SMALL, SMALL_TEXT, draw_model, write_original
from random_checkpoints.tokenizers import write_roberta

from xacle_stack._optional import stand_ins
from xacle_stack.encoders.laion_clap import LaionClapUnfused
from xacle_stack.encoders.laion_original import config_settings
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.mark.parametrize("is_fused", [False, True], ids=["unfused", "fused"])
def test_the_sizes_are_those_of_the_tensors(is_fused: bool) -> None:
    with stand_ins(["torchaudio", "torchvision"]), torch.device("meta"):
        from transformers import ClapConfig

        model = draw_model(HTSAT_BASE, SMALL_TEXT, is_fused=is_fused, seed=0)
    config = ClapConfig(**config_settings(model.state_dict()))
    assert (config.audio_config.enable_fusion, config.text_config.layer_norm_eps) == (
        is_fused,
        1e-5,
    )
    for part, sizes in ((config.audio_config, HTSAT_BASE), (config.text_config, SMALL_TEXT)):
        assert {name: getattr(part, name) for name in sizes} == sizes


def test_without_tensors_the_sizes_are_those_of_the_usual_models() -> None:
    with stand_ins(["torchaudio", "torchvision"]):
        from transformers import ClapConfig
    expected, found = ClapConfig(), ClapConfig(**config_settings({}))
    for name in ("hidden_size", "patch_embeds_hidden_size", "enable_fusion"):
        assert getattr(found.audio_config, name) == getattr(expected.audio_config, name)
    assert list(found.audio_config.num_attention_heads) == [4, 8, 16, 32]
    for name in SMALL_TEXT:
        assert getattr(found.text_config, name) == getattr(expected.text_config, name)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "weights.pt"
    with stand_ins(["torchaudio", "torchvision"]):
        write_original(path, draw_model(SMALL, SMALL_TEXT, is_fused=False, seed=0))
    return path


def test_names_without_a_prefix_load_as_well(written: Path, tmp_path: Path) -> None:
    state = torch.load(written, weights_only=False)["state_dict"]
    torch.save({key.removeprefix("module."): v for key, v in state.items()}, tmp_path / "bare.pt")
    write_roberta(tmp_path)
    found, expected = (
        LaionClapUnfused.load(str(path)).encode_text(["a"])["embedding"]
        for path in (tmp_path / "bare.pt", written)
    )
    np.testing.assert_array_equal(found, expected)


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code was run",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(optimizer=Code()), "more than tensors"),
        (lambda c: c.update(state_dict={"wte.weight": torch.ones(3)}), "LAION's"),
        (lambda c: c.update(state_dict=[1]), "list under 'state_dict'"),
        (
            lambda c: c["state_dict"].pop("module.text_projection.2.bias"),
            "missing: text_projection.linear2.bias",
        ),
        (
            lambda c: c["state_dict"].update(
                {"module.audio_branch.mel_conv1d.bias": torch.ones(3)}
            ),
            r"audio_model\.audio_encoder\.mel_conv1d\.bias",
        ),
        (
            lambda c: c["state_dict"].pop("module.audio_branch.patch_embed.proj.weight"),
            "size",
        ),
    ],
)
def test_another_file_is_told(written, tmp_path: Path, capsys, change, message: str) -> None:
    content = torch.load(written, weights_only=False)
    change(content)
    torch.save(content, tmp_path / "other.pt")
    write_roberta(tmp_path)
    with pytest.raises(EncoderError, match=rf"(?s)other\.pt .*{message}"):
        LaionClapUnfused.load(str(tmp_path / "other.pt"))
    assert "code was run" not in capsys.readouterr().out
