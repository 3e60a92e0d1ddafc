"""GLAP against the authors' package, where that is installed, and against the parts of PyTorch."""

import math
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import write_checkpoint
from random_checkpoints.deberta import train_pieces

from xacle_stack.encoders import EncoderChoice, get_encoder
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
if not get_encoder("glap").info.is_installed:
    pytest.skip("the extra timm is not installed", allow_module_level=True)
sentencepiece = pytest.importorskip("sentencepiece")

CAPTIONS = ["a dog barks", "Rain! Heavy rain on a tin roof, while a man speaks", "雨の音", ""]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path, "glap", full=False)


def noise(n_samples: int) -> np.ndarray:
    return np.random.default_rng(n_samples).normal(scale=0.1, size=n_samples).astype(np.float32)


def read_state(folder: Path) -> dict:
    return torch.load(folder / "glap_checkpoint.pt", weights_only=False)["model"]


def below(state: dict, prefix: str) -> dict:
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def read_pieces(folder: Path):
    (file,) = folder.glob("*.model")
    return sentencepiece.SentencePieceProcessor(model_file=str(file))


@pytest.mark.filterwarnings("ignore")  # the packages' own
def test_vectors_are_those_of_the_authors_package(folder: Path, monkeypatch) -> None:
    pytest.importorskip("torchaudio.transforms", exc_type=Exception)
    package = pytest.importorskip("dasheng.pretrained.pretrained")
    models = pytest.importorskip("glap_model.models.glap")
    from glap_model.models.audioencoders import dasheng_audioencoder
    from glap_model.models.textencoders import sonar_standalone, sonar_text_encoder

    state, n_pieces = read_state(folder), read_pieces(folder).get_piece_size()
    sizes = {"embed_dim": 768, "depth": 1, "num_heads": 12, "mlp_ratio": 64 / 768}
    monkeypatch.setattr(dasheng_audioencoder, "dasheng_base", lambda **_: package.Dasheng(**sizes))
    small = {"vocab_size": n_pieces + 206, "num_layers": 2, "ffn_inner_dim": 64}
    monkeypatch.setattr(
        sonar_text_encoder,
        "SonarTextEncoder",
        lambda **settings: sonar_standalone.SonarTextEncoder(**{**settings, **small}),
    )
    languages = sonar_standalone.NLLB_LANG_TOKEN_IDS
    fewer = {name: number - 256_000 + n_pieces for name, number in languages.items()}
    monkeypatch.setattr(sonar_standalone, "NLLB_LANG_TOKEN_IDS", fewer)
    (file,) = folder.glob("*.model")
    reference = models.GLAP(audio_encoder_args={}, text_encoder_args={"tokenizer_path": str(file)})
    computed = "audio_encoder.model.front_end.0.mel_scale.fb"
    reference.load_state_dict({**state, computed: reference.state_dict()[computed]})
    reference.eval()
    ours = EncoderChoice("glap", str(folder)).load()
    with torch.inference_mode():
        texts = reference.encode_text(CAPTIONS).numpy()
        np.testing.assert_allclose(ours.encode_text(CAPTIONS)["embedding"], texts, atol=1e-6)
        for n_samples in (16_000, 160_000, 161_300, 400_000):
            clip = noise(n_samples)
            expected = reference.encode_audio(torch.from_numpy(clip)[None]).numpy()
            found = ours.encode_audio([clip])["embedding"]
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_caption_goes_through_pytorchs_own_layers(folder: Path) -> None:
    state, pieces = read_state(folder), read_pieces(folder)
    text = below(state, "text_encoder.model.")
    layers = []
    for number in range(2):
        own = below(text, f"encoder.layers.{number}.")
        layer = torch.nn.TransformerEncoderLayer(
            1024, 16, 64, dropout=0, activation="relu", batch_first=True, norm_first=True
        )
        renamed = {
            f"self_attn.in_proj_{part}": torch.cat(
                [own[f"self_attn.{name}_proj.{part}"] for name in "qkv"]
            )
            for part in ("weight", "bias")
        }
        names = {
            "self_attn.out_proj": "self_attn.output_proj",
            "linear1": "ffn.inner_proj",
            "linear2": "ffn.output_proj",
            "norm1": "self_attn_layer_norm",
            "norm2": "ffn_layer_norm",
        }
        for theirs, name in names.items():
            renamed |= {f"{theirs}.{part}": own[f"{name}.{part}"] for part in ("weight", "bias")}
        layer.load_state_dict(renamed)
        layers.append(layer.eval())
    rates = 10_000 ** (-np.arange(512) / 511)
    linear = torch.nn.functional.linear
    found = EncoderChoice("glap", str(folder)).load().encode_text(CAPTIONS)["embedding"]
    for caption, vector in zip(CAPTIONS, found, strict=True):
        english = pieces.get_piece_size() + 47
        tokens = [english, *(1 + number for number in pieces.encode(caption)), 3]
        angles = np.outer(2 + np.arange(len(tokens)), rates)
        positions = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        frames = text["encoder_frontend.embed.weight"][tokens] * math.sqrt(1024)
        frames = (frames + torch.from_numpy(positions).float())[None]
        with torch.inference_mode():
            for layer in layers:
                frames = layer(frames)
            normed = torch.nn.functional.layer_norm(
                frames, (1024,), text["layer_norm.weight"], text["layer_norm.bias"]
            )
        hidden = linear(normed.mean(dim=1), state["text_proj.0.weight"], state["text_proj.0.bias"])
        projected = linear(hidden.relu(), state["text_proj.2.weight"], state["text_proj.2.bias"])
        expected = torch.nn.functional.normalize(projected, dim=1)[0].numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def project(state: dict, vectors: np.ndarray) -> np.ndarray:
    weights = {key: state[f"audio_proj.{key}"].numpy() for key in ("0.weight", "2.weight")}
    hidden = np.maximum(vectors @ weights["0.weight"].T + state["audio_proj.0.bias"].numpy(), 0)
    projected = hidden @ weights["2.weight"].T + state["audio_proj.2.bias"].numpy()
    return projected / np.linalg.norm(projected, axis=1, keepdims=True)


def test_a_clip_of_one_part_is_dashengs_vector_projected(folder: Path, tmp_path: Path) -> None:
    state = read_state(folder)
    torch.save({"model": below(state, "audio_encoder.model.")}, tmp_path / "dasheng.pt")
    dasheng = EncoderChoice("dasheng-base", str(tmp_path / "dasheng.pt")).load()
    glap = EncoderChoice("glap", str(folder)).load()
    clips = [noise(100), noise(16_000), noise(161_279)]
    expected = project(state, dasheng.encode_audio(clips)["pooled"])
    np.testing.assert_allclose(glap.encode_audio(clips)["embedding"], expected, atol=1e-5)
    # Beyond 1,008 frames a second part counts as much as the first, however little it holds.
    longer = glap.encode_audio([np.append(clips[2], noise(1))])["embedding"]
    assert np.abs(longer - expected[2]).max() > 1e-3


def test_captions_are_normalised_and_long_ones_end_with_their_mark(folder: Path) -> None:
    encoder = EncoderChoice("glap", str(folder)).load()
    long, longer = encoder.encode_text(["x " * 511, "x " * 900])["embedding"]
    np.testing.assert_allclose(np.linalg.norm([long, longer], axis=1), 1, rtol=1e-5)
    assert encoder.info.is_contrastive


def test_the_hubs_prefix_is_left_out(folder: Path) -> None:
    before = EncoderChoice("glap", str(folder)).load().encode_text(CAPTIONS)["embedding"]
    state = {f"model_impl.{key}": value for key, value in read_state(folder).items()}
    torch.save(state, folder / "glap_checkpoint.pt")
    after = EncoderChoice("glap", str(folder)).load().encode_text(CAPTIONS)["embedding"]
    np.testing.assert_array_equal(before, after)


def test_pieces_of_another_size_and_a_file_alone_are_told(folder: Path) -> None:
    with pytest.raises(EncoderError, match=r"is a file; expected the folder .*sentencepiece"):
        EncoderChoice("glap", str(folder / "glap_checkpoint.pt")).load()
    (file,) = folder.glob("*.model")
    n_pieces = read_pieces(folder).get_piece_size()
    file.write_bytes(train_pieces({"unk": "<unk>", "bos": "<s>", "eos": "</s>"}, "unigram"))
    with pytest.raises(EncoderError, match=rf"pieces, expected {n_pieces}\. Get .*zenodo"):
        EncoderChoice("glap", str(folder)).load()
    file.unlink()
    with pytest.raises(EncoderError, match="is not a checkpoint of it"):
        EncoderChoice("glap", str(folder)).fingerprint()
