import json
import os
import pickle
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from random_checkpoints import hub_snapshot
from support import TOY

from xacle_stack.encoders import Encoder, EncoderInfo, checkpoint
from xacle_stack.encoders.checkpoint import (
    Weights,
    find_on_hub,
    find_tokenizer,
    find_weights,
    hash_files,
    load_exactly,
    read_tensors,
)
from xacle_stack.encoders.mini.weights import MiniWeights
from xacle_stack.errors import EncoderError, MissingExtraError

WEIGHTS = Weights(
    files=(("config.json",), ("model.safetensors", "pytorch_model.bin")),
    optional=("tokenizer*",),
    hub_id="organisation/model",
)
TOKENIZER = Weights(files=(("vocab.txt",),), optional=("added.json",), hub_id="organisation/words")
OWN = Weights(files=(("own.pt",),), source="own.pt from its authors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> Path:
    """Return the folder that the hub's client takes for HF_HOME; the network is off."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "home"


def write_all(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_only_the_files_that_are_used_count(tmp_path: Path) -> None:
    folder = write_all(
        tmp_path,
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "README.md",
        "tokenizer.x",
    )
    names = [path.name for path in WEIGHTS.files_in(folder)]
    assert names == ["config.json", "model.safetensors", "tokenizer.x"]
    before = hash_files(folder, WEIGHTS.files_in(folder))
    (folder / "README.md").write_text("changed")
    assert hash_files(folder, WEIGHTS.files_in(folder)) == before
    (folder / "tokenizer.x").write_text("changed")
    assert hash_files(folder, WEIGHTS.files_in(folder)) != before


def test_a_single_file_is_the_same_in_a_folder_and_by_itself(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "a", "own.pt", "other")
    by_itself = write_all(tmp_path / "b", "own.pt") / "renamed.pt"
    (tmp_path / "b" / "own.pt").rename(by_itself)
    assert OWN.file(folder) == folder / "own.pt"
    assert OWN.file(by_itself) == by_itself
    assert hash_files(folder, OWN.files_in(folder)) == hash_files(by_itself, [by_itself])


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch) -> None:
    path = write_all(tmp_path, "own.pt") / "own.pt"
    first = hash_files(path, [path])
    digest = checkpoint.hashlib.file_digest
    monkeypatch.setattr(checkpoint.hashlib, "file_digest", None)
    assert hash_files(path, [path]) == first
    monkeypatch.setattr(checkpoint.hashlib, "file_digest", digest)
    path.write_text("another")
    assert hash_files(path, [path]) != first


def test_weights_are_found_in_the_hubs_cache(hub: Path) -> None:
    snapshot = write_all(
        hub_snapshot(hub, "organisation/model"), "config.json", "model.safetensors"
    )
    assert find_weights("x", WEIGHTS, None) == snapshot
    assert find_weights("x", WEIGHTS, "organisation/model") == snapshot
    assert find_weights("x", WEIGHTS, str(snapshot)) == snapshot


@pytest.mark.parametrize(
    ("weights", "place", "message"),
    [
        (OWN, None, r"'x': .*Get own.pt .* x=PATH"),
        (WEIGHTS, "no/such/file.pt", "'x': .*'no/such/file.pt'"),
        (
            WEIGHTS,
            "folder",
            r"'folder'.* no config.json",
        ),
        (WEIGHTS, None, r"organisation/model .*HF_HUB_OFFLINE .*`hf download organisation/model"),
        (WEIGHTS, "a/b", r"'x': a/b .* --checkpoint x=FOLDER"),
    ],
    ids=["no default", "no file", "no checkpoint", "offline", "offline, named"],
)
def test_what_is_not_there_is_said_with_what_to_fetch(
    hub: Path, tmp_path: Path, monkeypatch, weights: Weights, place: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path / "folder", "README.md")
    with pytest.raises(EncoderError, match=message):
        find_weights("x", weights, place)


def test_an_incomplete_snapshot_is_not_taken_for_the_weights(hub: Path) -> None:
    write_all(hub_snapshot(hub, "organisation/model"), "config.json")
    with pytest.raises(EncoderError, match="organisation/model"):
        find_weights("x", WEIGHTS, None)


def test_a_tokenizer_is_found_beside_the_weights_or_on_the_hub(hub: Path, tmp_path: Path) -> None:
    weights = write_all(tmp_path / "mine", "own.pt") / "own.pt"
    with pytest.raises(
        EncoderError,
        match=r"'x', tokenizer: organisation/words .*words vocab.txt --local",
    ):
        find_tokenizer("x", TOKENIZER, weights)
    hub_folder = write_all(hub_snapshot(hub, "organisation/words"), "vocab.txt", "README.md")
    assert find_tokenizer("x", TOKENIZER, weights) == [hub_folder / "vocab.txt"]
    write_all(weights.parent, "vocab.txt", "added.json")
    beside = [weights.parent / "added.json", weights.parent / "vocab.txt"]
    assert find_tokenizer("x", TOKENIZER, weights) == beside
    assert find_tokenizer("x", TOKENIZER, weights.parent) == beside


def test_a_tokenizer_is_part_of_what_decides_the_vectors(hub: Path, tmp_path: Path) -> None:
    class Reader(Encoder):
        info = EncoderInfo("x", "", text_outputs={"embedding": 1}, weights=OWN, tokenizer=TOKENIZER)

    weights = str(write_all(tmp_path / "mine", "own.pt") / "own.pt")
    with pytest.raises(EncoderError, match="organisation/words"):
        Reader.find_checkpoint(weights)
    words = write_all(hub_snapshot(hub, "organisation/words"), "vocab.txt") / "vocab.txt"
    first = Reader.fingerprint(weights)
    beside = write_all(tmp_path / "mine", "vocab.txt") / "vocab.txt"
    assert Reader.fingerprint(weights) == first
    beside.write_text("other words")
    assert Reader.fingerprint(weights) != first
    assert words.read_text() == "vocab.txt"


def test_a_hub_that_cannot_be_reached_is_asked_once(hub: Path, monkeypatch) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked = []

    def no_network(self, repo_id: str, **options: object) -> None:
        asked.append(repo_id)
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", no_network)
    with pytest.raises(EncoderError, match=r"ConnectionError.*Fetch"):
        find_weights("x", WEIGHTS, None)
    with pytest.raises(EncoderError, match="not on this machine.*Fetch"):
        find_weights("x", WEIGHTS, None, download=False)
    assert asked == ["organisation/model"]


def test_only_what_is_needed_is_downloaded(hub: Path, monkeypatch) -> None:
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    names = ["config.json", "pytorch_model.bin", "model.safetensors", "tf_model.h5", "tokenizer.x"]

    siblings = [SimpleNamespace(rfilename=name) for name in names]
    info = SimpleNamespace(sha="1" * 40, siblings=siblings)

    def download(hub_id: str, **options: object) -> str:
        if options.get("local_files_only"):
            raise LocalEntryNotFoundError("nothing here")
        assert options == {
            "revision": info.sha,
            "allow_patterns": ["config.json", "model.safetensors", "tokenizer.x"],
        }
        return str(hub)

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *_, **__: info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_weights("x", WEIGHTS, None) == hub
    del siblings[0]
    with pytest.raises(EncoderError, match=r"hub .* no config\.json"):
        find_weights("x", WEIGHTS, None)


def test_without_the_hubs_client_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'xacle-stack\[encoders\]'"):
        find_on_hub("encoder 'x'", WEIGHTS, "organisation/model", option="x")


class Payload:
    """What a stranger's pickle could hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code was run",)


def test_a_file_with_code_is_refused_and_not_run(tmp_path: Path, capsys) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"model": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(EncoderError, match=r"(?s)evil.pt .*than tensors.*convert it"):
        read_tensors("encoder 'x'", tmp_path / "evil.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(EncoderError, match="old.pt"):
        read_tensors("encoder 'x'", tmp_path / "old.pt")
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, damage: str) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / f"weights{suffix}"
    state = {"a": torch.zeros(1000)}
    torch.save(state, path) if suffix == ".pt" else safetensors.save_file(state, path)
    assert list(read_tensors("encoder 'x'", path)) == ["a"]
    content = {"cut": path.read_bytes()[:-700], "empty": b"", "text": b"<html>Not found</html>"}
    path.write_bytes(content[damage])
    with pytest.raises(EncoderError, match="weights .* fetch it again"):
        read_tensors("encoder 'x'", path)


def safetensors_image(header: dict[str, object], n_bytes: int, size: int | None = None) -> bytes:
    """Return a file of weights as its header has it, true or not."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + bytes(n_bytes)


def tensor(start: int, end: int, *shape: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


LIES = {
    "overlap": safetensors_image({"a": tensor(0, 16, 4), "b": tensor(8, 24, 4)}, 24),
    "beyond the end": safetensors_image({"a": tensor(0, 2**42, 2**40)}, 24),
    "an overflow": safetensors_image({"a": tensor(0, 0, 2**33, 2**33)}, 0),
    "a huge header": safetensors_image({}, 100, size=2**62),
    "a header beyond the end": safetensors_image({}, 10, size=2**20),
    "no JSON": struct.pack("<Q", 8) + b"[[[[[[[[",
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_safetensors_whose_header_lies_are_refused(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    path = tmp_path / "lies.safetensors"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match="lies.safetensors "):
        read_tensors("encoder 'x'", path)


def test_an_npz_with_objects_is_refused_and_not_run(tmp_path: Path, capsys) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "evil.npz"
    np.savez(path, a=np.array([Payload()], dtype=object))
    with pytest.raises(EncoderError, match="evil.npz"):
        read_tensors("encoder 'x'", path)
    with pytest.raises(EncoderError, match="evil.npz: .*npz"):
        MiniWeights.read(path, 1, 1, 1)
    # An array that its header makes larger than any memory.
    np.savez(path, a=np.zeros(4))
    path.write_bytes(
        path.read_bytes().replace(b"(4,), }" + b" " * 12, b"(4" + b"0" * 12 + b",), }")
    )
    with pytest.raises(EncoderError, match="evil.npz: .*npz"):
        MiniWeights.read(path, 1, 1, 1)
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.timeout(60)
@pytest.mark.skipif(os.name != "posix", reason="pipes with names are of POSIX")
def test_a_checkpoint_that_never_ends_is_not_opened(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    os.mkfifo(tmp_path / "own.pt")
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    for path in (tmp_path / "own.pt", tmp_path / "zero.pt"):
        with pytest.raises(EncoderError, match=f"{path.name} .*file nor a folder"):
            read_tensors("encoder 'x'", path)
        with pytest.raises(EncoderError, match=f"{path.name}: .*not a regular file"):
            hash_files(path, [path])
        with pytest.raises(EncoderError, match=f"{path.name} .*file nor a folder"):
            find_weights("x", OWN, str(path))
        with pytest.raises(EncoderError, match=f"{path.name} .*file nor a folder"):
            TOY.encoder.fingerprint(str(path))
    # As one of a folder's files, too.
    with pytest.raises(EncoderError, match="no own.pt"):
        find_weights("x", OWN, str(tmp_path))


def test_every_key_is_accounted_for(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pt"
    model = torch.nn.Linear(2, 3)
    good = torch.nn.Linear(2, 3).state_dict()
    load_exactly("encoder 'x'", model, good, path)
    assert torch.equal(model.weight, good["weight"])

    renamed = {"wight": good["weight"], "bias": good["bias"]}
    with pytest.raises(
        EncoderError, match=r"(?s)1 of its .*missing, 1 .*surplus.*: weight\n.*model: wight"
    ):
        load_exactly("encoder 'x'", model, renamed, path)
    load_exactly("encoder 'x'", model, renamed, path, may_miss=["w*ght"], may_ignore=["wi*"])
    with pytest.raises(EncoderError, match="no tensors"):
        load_exactly("encoder 'x'", model, {}, path)
    with pytest.raises(EncoderError, match=r"size:(?s:.*)size mismatch for weight"):
        load_exactly("encoder 'x'", model, {**good, "weight": torch.zeros(3, 4)}, path)


def test_infos_tell_what_is_installed_without_importing_it() -> None:
    there = EncoderInfo("x", "", text_outputs={"embedding": 1}, requires=("numpy>=1",))
    absent = EncoderInfo("x", "", text_outputs={"embedding": 1}, requires=("no_such_package",))
    older = EncoderInfo("x", "", text_outputs={"embedding": 1}, requires=("numpy>=1", "h5py<1"))
    assert there.is_installed
    assert not absent.is_installed
    assert not older.is_installed
