import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import TESTS, TOY

from xacle_stack.encoders import (
    Encoder,
    EncoderChoice,
    encoder_names,
    get_encoder,
    read_fingerprints,
)
from xacle_stack.encoders.masks import MASKS
from xacle_stack.encoders.registry import BUILT_IN
from xacle_stack.errors import EncoderError, UnknownNameError

# Those that carry their weights; test_families.py has the others.
EMBEDDED = [name for name in BUILT_IN if get_encoder(name).info.weights is None]
CHOICES = [*(EncoderChoice(name) for name in EMBEDDED), TOY]


def items(encoder: type[Encoder], modality: str) -> list[object]:
    if modality == "text":
        return ["a dog barks", "heavy rain on a tin roof while a man speaks", "sea"]
    rng = np.random.default_rng(0)
    rate = encoder.info.sample_rate_hz or 0
    lengths = (rate, 3 * rate, rate // 3, 4000)
    return [rng.normal(scale=0.1, size=n).astype(np.float32) for n in lengths]


@pytest.mark.parametrize("modality", ["audio", "text"])
@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name.rpartition("/")[2])
def test_alone_equals_together_whatever_the_random_state(choice, modality: str) -> None:
    encoder = choice.encoder.load().with_outputs(choice.encoder.info.on_demand)
    encode = encoder.encode_audio if modality == "audio" else encoder.encode_text
    batch = items(choice.encoder, modality)
    np.random.seed(1)  # noqa: NPY002 - the global state is what must not matter
    together = encode(batch)
    np.random.seed(2)  # noqa: NPY002
    assert set(together) == set(encoder.info.outputs(modality))
    for row, item in enumerate(batch):
        for name, values in encode([item]).items():
            assert len(values) == 1
            assert values[0].shape[-1] == encoder.info.outputs(modality)[name]
            assert values[0].ndim == (2 if name in encoder.info.sequences else 1)
            assert np.isfinite(values[0]).all()
            np.testing.assert_array_equal(values[0], together[name][row])


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name.rpartition("/")[2])
def test_silence_has_a_direction(choice) -> None:
    encoder = choice.encoder.load()
    silence = np.zeros(encoder.info.sample_rate_hz, dtype=np.float32)
    for values in encoder.encode_audio([silence]).values():
        assert np.isfinite(values).all()
    assert encoder.encode_audio([silence])["embedding"].any()


def test_listing_loads_no_weights() -> None:
    code = """
import sys, numpy
numpy.load = None
from xacle_stack.encoders import encoder_names, get_encoder
print([get_encoder(name).info.summary for name in encoder_names()])
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UnknownNameError, match="unknown encoder 'clap'. Known: .*mini-mel"):
        get_encoder("clap")


def test_an_encoder_of_your_own(tmp_path: Path) -> None:
    assert get_encoder(TOY.name).info.name == "toy"
    assert "toy" not in encoder_names()
    with pytest.raises(EncoderError, match="no such file"):
        get_encoder(f"{tmp_path}/nowhere.py:Mine")
    with pytest.raises(EncoderError, match="defines no 'Other'"):
        get_encoder(f"{TESTS}/toy_encoder.py:Other")
    with pytest.raises(EncoderError, match=r"xacle_stack\.encoders\.Encoder"):
        get_encoder(f"{TESTS}/toy_encoder.py:Sequence")


def test_an_installed_package_adds_encoders(tmp_path: Path, monkeypatch) -> None:
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[xacle_stack.encoders]\nours = toy_encoder:ToySpace\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "ours" in encoder_names()
    assert get_encoder("ours").info.name == "toy"


def test_a_view_is_an_encoder_of_its_own_in_the_cache() -> None:
    plain = EncoderChoice("mini-mel")
    views = [replace(plain, view=view) for view in (1, 2)]
    assert [choice.info.name for choice in views] == ["mini-mel.view-1", "mini-mel.view-2"]
    assert views[0].info.audio_outputs == plain.info.audio_outputs
    assert views[0].info.text_outputs == {}
    assert views[0].unaugmented == plain
    assert plain.info == plain.encoder.info.with_outputs([])
    fingerprints = [choice.fingerprint() for choice in (plain, *views)]
    assert len({fingerprint.digest for fingerprint in fingerprints}) == 3
    assert "view" not in fingerprints[0].facts
    assert fingerprints[1].facts["checkpoint"] == fingerprints[0].facts["checkpoint"]
    assert fingerprints[1].facts["view"] == {"number": 1, "made by": MASKS}


def test_a_view_that_is_not_there_is_told() -> None:
    with pytest.raises(EncoderError, match="'mini-mel'.* -1; .*0, 1, 2"):
        EncoderChoice("mini-mel", view=-1).info
    with pytest.raises(EncoderError, match="'toy'.* view 1\\b"):
        replace(TOY, view=1).fingerprint()


ON_DEMAND = EncoderChoice(TOY.name.replace("ToySpace", "ToyOnDemand"))


def test_only_outputs_that_are_asked_for_are_stored() -> None:
    plain, frames = ON_DEMAND.info, replace(ON_DEMAND, outputs=("frames",)).info
    assert (plain.audio_outputs, plain.text_outputs) == (
        {"embedding": 6, "level": 2},
        {"embedding": 6},
    )
    assert plain.sequences == {}
    assert frames.audio_outputs == {"embedding": 6, "level": 2, "frames": 100}
    assert (frames.text_outputs, frames.sequences) == ({"embedding": 6}, {"frames": "float16"})
    both = replace(ON_DEMAND, outputs=("letters", "frames", "level"))  # which is always there
    assert both.info.outputs("audio") == frames.audio_outputs
    assert both.info.outputs("text") == {"embedding": 6, "letters": 2}
    for choice in (ON_DEMAND, both):
        loaded = choice.load()
        assert {*loaded.encode_audio([np.zeros(9)])} == {*choice.info.audio_outputs}
        assert {*loaded.encode_text(["a"])} == {*choice.info.text_outputs}
    with pytest.raises(EncoderError, match=r"'toy-on-demand'.* \['tokens'\]; .*'level', 'frames'"):
        replace(ON_DEMAND, outputs=("tokens",)).info


def test_outputs_on_demand_are_part_of_the_fingerprint_where_they_are_asked_for() -> None:
    class Always(ON_DEMAND.encoder):
        info = replace(ON_DEMAND.encoder.info, on_demand={})

    class Never(ON_DEMAND.encoder):
        info = replace(ON_DEMAND.info, name="toy-on-demand")

    def facts(*outputs: str) -> dict[str, object]:
        return dict(replace(ON_DEMAND, outputs=outputs).fingerprint().facts)

    source = {"source": facts()["source"]}
    assert facts() == facts("level") == {**Never.fingerprint().facts, **source}
    made = "1; frames: 100 samples each; letters: code points"
    all_facts = {**Always.fingerprint().facts, **source, "preprocessing": made}
    assert facts("frames", "letters") == facts("letters", "frames") == all_facts
    digests = {
        replace(ON_DEMAND, outputs=outputs).fingerprint().digest
        for outputs in ((), ("frames",), ("letters",), ("frames", "letters"))
    }
    assert len(digests) == 4


def test_a_view_has_the_outputs_of_clips_that_are_asked_for() -> None:
    view = replace(ON_DEMAND, view=1, outputs=("frames", "letters"))
    assert view.info.audio_outputs == {"embedding": 6, "level": 2, "frames": 100}
    assert (view.info.text_outputs, view.info.sequences) == ({}, {"frames": "float16"})
    loaded = view.load()
    (frames,) = loaded.encode_audio([np.ones(200, dtype=np.float32)])["frames"]
    assert (frames.shape, frames.max()) == ((2, 100), 0.5)
    assert loaded.with_view(0).outputs == ("frames", "letters")


def test_every_missing_checkpoint_is_told_at_once(tmp_path: Path) -> None:
    absent = [EncoderChoice(TOY.name, str(tmp_path / name)) for name in ("a.pt", "b.pt")]
    with pytest.raises(EncoderError, match="^encoder 'toy': no checkpoint at .*a.pt"):
        read_fingerprints([TOY, absent[0]])
    with pytest.raises(EncoderError, match=r"(?s)2 encoders lack something:.*a\.pt.*b\.pt"):
        read_fingerprints([absent[0], TOY, absent[1]])


def test_editing_your_own_encoder_makes_another_store(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text((TESTS / "toy_encoder.py").read_text())
    choice = EncoderChoice(f"{path}:ToySpace")
    assert choice.encoder is choice.encoder
    before = choice.fingerprint().digest
    path.write_text(path.read_text().replace("2048", "4096"))
    assert choice.fingerprint().digest != before


def test_a_file_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for content, message in {
        "def f(:": "cannot be imported: SyntaxError",
        "import numpyy": "ModuleNotFoundError: .*'numpyy'",
        "from xacle_stack import EncoderInfo\nEncoderInfo(nom='x')": "imported: TypeError",
        "from xacle_stack import EncoderInfo\nEncoderInfo('x', '', {'e': 1}, {}, '16k')": (
            "sample_rate_hz.*'16k'"
        ),
    }.items():
        path.write_text(content)
        with pytest.raises(EncoderError, match=message):
            get_encoder(f"{path}:Mine")
        path.unlink()
