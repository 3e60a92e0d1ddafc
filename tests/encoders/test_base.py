from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import TOY

from xacle_stack.encoders import Encoder, EncoderInfo, Fingerprint, check_outputs
from xacle_stack.encoders.base import hash_path
from xacle_stack.errors import EncoderError


def test_an_info_must_make_sense() -> None:
    with pytest.raises(EncoderError, match="no audio and no text"):
        EncoderInfo("nothing", "")
    with pytest.raises(EncoderError, match="sample_rate_hz"):
        EncoderInfo("deaf", "", audio_outputs={"embedding": 3})
    with pytest.raises(EncoderError, match="'My Encoder'.* lower-case"):
        EncoderInfo("My Encoder", "", text_outputs={"embedding": 3})


def test_a_contrastive_space_embeds_both_alike() -> None:
    def info(**outputs: dict[str, int]) -> EncoderInfo:
        return EncoderInfo("e", "", sample_rate_hz=8000, **outputs)

    both = info(audio_outputs={"embedding": 3, "logits": 5}, text_outputs={"embedding": 3})
    assert both.is_contrastive
    assert not info(audio_outputs={"embedding": 3}).is_contrastive
    other_size = info(audio_outputs={"embedding": 3}, text_outputs={"embedding": 4})
    assert not other_size.is_contrastive


def test_a_digest_changes_with_every_fact() -> None:
    digests = {
        Fingerprint(encoder, {"checkpoint": checkpoint, "preprocessing": p}).digest
        for encoder in ("a", "b")
        for checkpoint in (None, "x")
        for p in ("1", "2")
    }
    assert len(digests) == 8
    assert all(len(digest) == 16 for digest in digests)
    assert Fingerprint("a", {"x": 1, "y": 2}).digest == Fingerprint("a", {"y": 2, "x": 1}).digest


def test_the_fingerprint_follows_the_checkpoints_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"weights")
    encoder = TOY.encoder
    first = encoder.fingerprint(str(tmp_path / "a"))
    assert first.digest == encoder.fingerprint(str(tmp_path / "b")).digest
    (tmp_path / "b").write_bytes(b"weightz")
    assert first.digest != encoder.fingerprint(str(tmp_path / "b")).digest
    assert first.digest != encoder.fingerprint().digest


def test_a_folder_is_hashed_by_names_and_contents(tmp_path: Path) -> None:
    def folder(name: str, **files: bytes) -> str:
        path = tmp_path / name
        path.mkdir()
        for file, content in files.items():
            (path / file).write_bytes(content)
        return hash_path(path)

    first = folder("1", a=b"x", b=b"y")
    assert folder("2", b=b"y", a=b"x") == first
    assert folder("3", a=b"y", b=b"x") != first
    assert folder("4", a=b"x", c=b"y") != first


def test_a_wrong_checkpoint_path_is_told() -> None:
    with pytest.raises(EncoderError, match="'toy'.*'nowhere.npz'"):
        TOY.encoder.fingerprint("nowhere.npz")


def test_outputs_that_break_the_contract_are_told() -> None:
    info = TOY.encoder.info
    good = {"embedding": np.ones((2, 6)), "level": np.zeros((2, 2))}
    checked = check_outputs(info, "audio", good, 2)
    assert checked["level"].dtype == np.float32
    with pytest.raises(EncoderError, match=r"\['level'\]"):
        check_outputs(info, "audio", {"level": np.zeros((2, 2))}, 2)
    with pytest.raises(EncoderError, match=r"'level': expected shape \(3, 2\), got \(2, 2\)"):
        check_outputs(info, "audio", {"embedding": np.ones((3, 6)), "level": good["level"]}, 3)
    bad = np.ones((2, 6))
    bad[1] = np.nan, 0, 0, 0, 0, 0
    with pytest.raises(EncoderError, match="'embedding', item 1 of a batch of 2: .* NaN"):
        check_outputs(info, "audio", {**good, "embedding": bad}, 2)
    with pytest.raises(EncoderError, match="'embedding': .* NaN"):
        check_outputs(
            info, "audio", {name: bad[1:, : array.shape[1]] for name, array in good.items()}, 1
        )


def test_a_zero_vector_is_told_where_its_direction_counts() -> None:
    info = TOY.encoder.info
    outputs = {"embedding": np.eye(3, 6, k=-1), "level": np.zeros((3, 2))}
    with pytest.raises(EncoderError, match="'embedding', item 0 of a batch of 3: .* zero"):
        check_outputs(info, "audio", outputs, 3)
    alone = replace(info, text_outputs={})
    assert not check_outputs(alone, "audio", outputs, 3)["embedding"][0].any()


def frames_info() -> EncoderInfo:
    return EncoderInfo(
        "e", "", audio_outputs={"frames": 3}, sample_rate_hz=8000, sequences={"frames": "float16"}
    )


def test_sequences_that_break_the_contract_are_told() -> None:
    info = frames_info()
    good = [np.ones((2, 3)), np.ones((5, 3))]
    (checked,) = check_outputs(info, "audio", {"frames": good}, 2).values()
    assert [(len(sequence), sequence.dtype) for sequence in checked] == [(2, "f2"), (5, "f2")]
    bad: dict[str, object] = {
        r"list.* 2 items .*got ndarray": np.ones((2, 4, 3)),
        r"list.* 2 items .*got 1": good[:1],
        r"item 1 of a batch of 2: .*\(n_frames, 3\) .* got \(5, 4\)": [
            good[0],
            np.ones((5, 4)),
        ],
        r"item 0 of a batch of 2: .* one frame, got \(0, 3\)": [
            np.ones((0, 3)),
            good[1],
        ],
        r"item 1 of a batch of 2: .* got \(3,\)": [good[0], np.ones(3)],
        "item 0 of a batch of 2: frame 1 .*NaN": [
            np.array([[1, 1, 1], [1, 1, np.nan]]),
            good[1],
        ],
        "item 1 of a batch of 2: frame 4 .*float16": [
            good[0],
            good[1] + 1e5 * (np.arange(5) == 4)[:, None],
        ],
        "item 1 of a batch of 2: .*array of numbers": [good[0], [["a", "b", "c"]]],
    }
    for message, sequences in bad.items():
        with pytest.raises(EncoderError, match=f"'e', audio output 'frames'.*{message}"):
            check_outputs(info, "audio", {"frames": sequences}, 2)


def test_a_declared_sequence_must_make_sense() -> None:
    for sequences in ({"other": "float16"}, {"frames": "float64"}, {"embedding": "float16"}):
        with pytest.raises(EncoderError, match="sequence .* 'float"):
            replace(frames_info(), audio_outputs={"frames": 3, "embedding": 3}, sequences=sequences)


def test_the_type_that_sequences_are_stored_in_is_part_of_the_fingerprint() -> None:
    class Half(TOY.encoder):
        info = replace(TOY.encoder.info, sequences={"level": "float16"})

    class Single(TOY.encoder):
        info = replace(TOY.encoder.info, sequences={"level": "float32"})

    digests = {encoder.fingerprint().digest for encoder in (TOY.encoder, Half, Single)}
    assert len(digests) == 3
    assert "sequences" not in TOY.encoder.fingerprint().facts


def test_only_sequences_can_be_on_demand() -> None:
    info = replace(frames_info(), on_demand={"frames": "as they are"})
    assert info.with_outputs(["frames"]).sequences == {"frames": "float16"}
    with pytest.raises(EncoderError, match=r"\['other'\] on demand; .* \['frames'\]"):
        replace(info, on_demand={"other": ""})


def test_a_modality_that_is_not_there_is_told() -> None:
    class Silent(Encoder):
        info = EncoderInfo("silent", "", text_outputs={"embedding": 1})

        @classmethod
        def load(cls, checkpoint: str | None = None, device: str = "cpu") -> "Silent":
            return cls()

    with pytest.raises(EncoderError, match="'silent'.* encode audio: "):
        Silent.load().encode_audio([])
    with pytest.raises(EncoderError, match="'silent'.* encode text: "):
        Silent.load().encode_text([])
