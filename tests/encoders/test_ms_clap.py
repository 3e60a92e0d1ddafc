import sys
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from random_checkpoints.ms_clap import TINY_BERT, TINY_GPT2, build_clap

from xacle_stack._optional import stand_ins
from xacle_stack.audio import fixed_windows
from xacle_stack.encoders import EncoderChoice, ms_clap
from xacle_stack.errors import EncoderError, MissingExtraError

pytest.importorskip("torch")
pytest.importorskip("transformers")
if not EncoderChoice("ms-clap-2023").encoder.info.is_installed:
    pytest.skip("msclap is not installed", allow_module_level=True)

RATE = 44_100
CAPTIONS = [
    "a dog barks",
    "Heavy rain on a tin roof, while a man speaks",
    "",
    "Stop! Wow!!",
    "!",
    "  ünï 雨  ",
    "0123456789 " * 6,
]


class Pair:
    """An encoder, and msclap's own wrapper around the same weights."""

    def __init__(self, choice: EncoderChoice, version: str) -> None:
        import transformers

        self.path = Path(choice.checkpoint)
        self.encoder = choice.load()
        msclap = sys.modules["msclap"]
        tower = self.encoder.model["caption_encoder"]["base"]
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(self.path.parent))
        with (
            warnings.catch_warnings(),
            mock.patch.object(sys.modules["msclap.models.clap"], "AutoModel") as models,
            mock.patch.object(sys.modules["msclap.CLAPWrapper"], "AutoTokenizer") as tokenizers,
        ):
            warnings.simplefilter("ignore")
            models.from_pretrained.return_value = type(tower)(tower.config)
            tokenizers.from_pretrained.return_value = tokenizer
            self.theirs = msclap.CLAP(model_fp=str(self.path), version=version)

    def embed_audio(self, clip: np.ndarray) -> np.ndarray:
        """Return msclap's embedding of a clip that is no longer than the window."""
        import torch

        samples = torch.from_numpy(clip)[None]
        with mock.patch.object(self.theirs, "read_audio", return_value=(samples, RATE)):
            prepared = self.theirs.preprocess_audio(["clip.wav"], resample=False)
        return self.theirs._get_audio_embeddings(prepared).numpy()[0]


@pytest.fixture(scope="module", params=["2022", "2023"])
def pair(request, written) -> Pair:
    return Pair(written(f"ms-clap-{request.param}"), request.param)


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_clips_have_the_vectors_of_msclap(pair: Pair, rng) -> None:
    n = round(pair.encoder.info.window_s * RATE)
    # One that does not divide the window: repeated and cut, where others fill up with zeros.
    clips = [rng.normal(scale=0.1, size=k).astype(np.float32) for k in (n, n - 1, n // 3 + 7, 1)]
    ours = pair.encoder.encode_audio(clips)["embedding"]
    assert_close(ours, np.stack([pair.embed_audio(clip) for clip in clips]))


def test_a_longer_clip_is_the_mean_of_its_windows(pair: Pair, rng) -> None:
    n = round(pair.encoder.info.window_s * RATE)
    clip = rng.normal(scale=0.1, size=n + 20_000).astype(np.float32)
    clip[:n] *= np.linspace(0, 1, n, dtype=np.float32)
    theirs = [pair.embed_audio(window) for window in fixed_windows(clip, n)]
    assert_close(pair.encoder.encode_audio([clip])["embedding"][0], np.mean(theirs, axis=0))


@pytest.mark.filterwarnings("ignore:The `pad_to_max_length`", "ignore:Truncation")
def test_captions_have_the_vectors_of_msclap(pair: Pair) -> None:
    theirs = pair.theirs.get_text_embeddings(CAPTIONS).numpy()
    assert_close(pair.encoder.encode_text(CAPTIONS)["embedding"], theirs)
    assert not np.allclose(theirs[0], theirs[1])


def test_of_a_long_caption_the_beginning_and_the_mark_of_the_end_count(pair: Pair) -> None:
    limit = pair.encoder.max_tokens
    long, longer, other = "a " * limit, "a " * limit + "b " * 500, "b " + "a " * limit
    vectors = pair.encoder.encode_text([long, longer, other])["embedding"]
    assert_close(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2])


def test_the_model_has_the_tensors_of_msclaps(pair: Pair) -> None:
    import transformers

    config = {
        "2022": transformers.BertConfig(**TINY_BERT),
        "2023": transformers.GPT2Config(**TINY_GPT2),
    }[pair.encoder.year]
    theirs = build_clap(pair.encoder.year, config).state_dict()
    ours = pair.encoder.model.state_dict()
    assert {key: v.shape for key, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_a_file_without_some_of_the_tensors_is_refused(pair: Pair, tmp_path: Path) -> None:
    """msclap itself takes such a file, and leaves the tensors random."""
    import torch

    choice = EncoderChoice(pair.encoder.info.name, str(tmp_path / "weights.pth"))
    for file in pair.path.parent.glob("*.*"):
        if file.suffix != ".pth":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    state = torch.load(pair.path)["model"]
    partial = {k: v for k, v in state.items() if not k.startswith("caption_encoder.projection")}
    torch.save({"model": partial}, tmp_path / "weights.pth")
    with pytest.raises(EncoderError, match=r"(?s)4 of its tensors.*: caption_encoder\.projection"):
        choice.load()
    torch.save({"model": {}}, tmp_path / "weights.pth")
    with pytest.raises(EncoderError, match="no tensors"):
        choice.load()
    torch.save({"model": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(EncoderError, match="Tensor under 'model'"):
        choice.load()
    torch.save(state, tmp_path / "weights.pth")  # as converted by hand
    assert choice.load().info.name == pair.encoder.info.name


def test_the_other_years_weights_are_refused(tmp_path: Path, written, pair: Pair) -> None:
    other = {"2022": "ms-clap-2023", "2023": "ms-clap-2022"}[pair.encoder.year]
    weights = Path(written(other).checkpoint)
    path = tmp_path / weights.name
    path.symlink_to(weights)
    for file in pair.path.parent.glob("*.*"):
        if file.suffix != ".pth":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(EncoderError, match=r"(?s)weights_\d+\.pth .*(missing|another model)"):
        EncoderChoice(pair.encoder.info.name, str(path)).load()


def test_importing_msclap_leaves_warnings_and_logs_as_they_were(monkeypatch) -> None:
    import transformers

    for name in [name for name in sys.modules if name.partition(".")[0] == "msclap"]:
        monkeypatch.delitem(sys.modules, name)
    filters, verbosity = warnings.filters.copy(), transformers.logging.get_verbosity()
    with stand_ins(["torchaudio", "torchvision"]), ms_clap._side_effects_undone(transformers):
        import msclap  # noqa: F401

        assert transformers.logging.get_verbosity() == transformers.logging.ERROR
    assert warnings.filters == filters
    assert transformers.logging.get_verbosity() == verbosity != transformers.logging.ERROR


def test_without_msclap_its_extra_is_named(pair: Pair, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "msclap"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoMsclap, *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"pip install 'xacle-stack\[msclap\]'"):
        EncoderChoice(pair.encoder.info.name, str(pair.path)).load()


class NoMsclap:
    """An import finder that knows of no msclap."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "msclap":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
