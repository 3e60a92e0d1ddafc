import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from stored_rows import STORE, assert_rows, write_rows

from xacle_stack.cache import FeatureCache, StoreId, text_key
from xacle_stack.cache.schema import KEY_DTYPE, bytes_digest, segment_image
from xacle_stack.cache.segment_file import _checked, open_segment, read_keys, segment_errors
from xacle_stack.cache.writer import write_segment
from xacle_stack.errors import CacheError

N_ROWS = 4
KEYS = np.array([text_key(str(row)) for row in range(N_ROWS)], dtype=KEY_DTYPE)


def only_segment(root: Path) -> Path:
    (path,) = (root / STORE.folder).glob("*.h5")
    return path


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    write_rows(tmp_path, range(N_ROWS), "vectors")
    return only_segment(tmp_path)


def change(path: Path, edit: Callable[[h5py.File], None]) -> Path:
    """Change a segment and name it after its new bytes, as a stranger could."""
    with h5py.File(path, "r+") as file:
        edit(file)
    return path.rename(path.with_name(f"text-{bytes_digest(path.read_bytes())}.h5"))


def test_a_lock_elsewhere_keeps_nobody_from_reading(segment: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with segment.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert_rows(segment.parent.parent, range(N_ROWS), "vectors")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "permission"),
        (errno.EIO, "Check the disk"),
        (errno.ENOLCK, "HDF5_USE_FILE_LOCKING"),
        (errno.EAGAIN, "HDF5_USE_FILE_LOCKING"),
        (errno.EMFILE, r"ulimit -n"),
        (errno.ENOMEM, "Free some memory"),
        (errno.EBUSY, "Mend that"),
    ],
)
def test_what_the_system_refuses_is_no_damage(segment: Path, number: int, remedy: str) -> None:
    with pytest.raises(CacheError, match=remedy) as caught, segment_errors(segment):
        raise OSError(number, "in the words of HDF5")
    message = str(caught.value)
    assert f"{segment}: cannot be read ({os.strerror(number)})" in message
    assert "damaged" not in message
    assert "Delete" not in message


def test_bytes_that_cannot_be_read_are_not_judged(segment: Path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("h5py.File", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CacheError, match=r"Permission denied.*permission"):
        read_keys(segment)
    faults = [fault for _, fault in FeatureCache(segment.parent.parent).verify() if fault]
    assert len(faults) == 2  # the segment and fingerprint.json
    assert all("cannot be read (Permission denied)" in fault for fault in faults)


def test_too_many_open_files_are_no_damage(segment: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(CacheError, match=r"Too many open files.*ulimit -n"):
            read_keys(segment)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_little_memory_is_no_damage(segment: Path) -> None:
    with pytest.raises(MemoryError), segment_errors(segment):
        raise MemoryError


def test_a_file_that_hdf5_refuses_though_its_bytes_are_sound(segment: Path) -> None:
    with (
        h5py.File(segment, "r", locking=True),  # HDF5 opens no file in two ways at once
        pytest.raises(CacheError, match="HDF5 cannot read it .*intact"),
    ):
        read_keys(segment)


def test_damage_is_what_disagrees_with_the_name(segment: Path) -> None:
    segment.write_bytes(segment.read_bytes()[:-9])
    with pytest.raises(CacheError, match=r"damaged.*Delete the file"):
        read_keys(segment)
    segment.write_text("this is no HDF5")
    with pytest.raises(CacheError, match=r"damaged .*`xacle-stack features`: only its rows"):
        read_keys(segment)
    segment.unlink()
    with pytest.raises(CacheError, match="gone"):
        read_keys(segment)


def test_a_flipped_byte_in_an_older_segment_cannot_hold_up_a_reader(segment: Path) -> None:
    segment = change(segment, lambda file: file.attrs.__delitem__("belongs_to"))
    root = segment.parent.parent
    assert_rows(root, range(N_ROWS), "vectors")
    sound = segment.read_bytes()
    # HDF5 reads the strings of older segments from a heap without a checksum.
    heap = sound.index(b"GCOL")
    for place in range(heap, heap + 120):
        flipped = bytearray(sound)
        flipped[place] ^= 0x40
        segment.write_bytes(flipped)
        with pytest.raises(CacheError, match="damaged"):
            read_keys(segment)


def test_a_newer_schema_is_refused(segment: Path) -> None:
    segment = change(segment, lambda file: file.attrs.__setitem__("schema_version", 3))
    with pytest.raises(CacheError, match="schema 3.* 2 "):
        read_keys(segment)


@pytest.mark.parametrize(
    ("store", "modality"),
    [(STORE, "audio"), (StoreId("toy", "f" * 16), "text"), (StoreId("other", "0" * 16), "text")],
)
@pytest.mark.parametrize("is_older", [False, True])
def test_a_segment_of_another_store_is_refused_by_all(
    segment: Path, store: StoreId, modality: str, is_older: bool
) -> None:
    root = segment.parent.parent
    image = segment_image(store, modality, KEYS, {"embedding": np.ones((N_ROWS, 9), np.float32)})
    foreign = segment.with_name(f"text-{bytes_digest(image)}.h5")
    foreign.write_bytes(image)
    if is_older:
        foreign = change(foreign, lambda file: file.attrs.__delitem__("belongs_to"))
    cache = FeatureCache(root)
    message = f"{foreign}: this segment belongs to {store.folder}/{modality}, not to {STORE.folder}"
    for use in (
        lambda: assert_rows(root, range(N_ROWS), "vectors"),
        lambda: cache.known_keys(STORE, "text"),
        cache.summaries,
        cache.compact,
    ):
        with pytest.raises(CacheError, match=message):
            use()
    (fault,) = [fault for _, fault in cache.verify() if fault]
    assert message in fault
    assert segment.exists()


def _replace_vectors(file: h5py.File, **stored: object) -> None:
    del file["outputs/embedding"]
    file["outputs"].create_dataset("embedding", **stored)


def _virtual(file: h5py.File) -> None:
    del file["outputs/embedding"]
    layout = h5py.VirtualLayout((N_ROWS, 9), "float32")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (N_ROWS, 9))
    file.create_virtual_dataset("outputs/embedding", layout)


def _link(name: str, link: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return edit


def _external(file: h5py.File) -> None:
    outside = [("elsewhere.bin", 0, N_ROWS * 36)]
    _replace_vectors(file, shape=(N_ROWS, 9), dtype="float32", external=outside)


def _unwritten(file: h5py.File) -> None:
    shape = (N_ROWS, 1 << 29)
    _replace_vectors(file, shape=shape, dtype="float32", chunks=(1, shape[1]), fletcher32=True)


def _vectors(values: object, **stored: object) -> Callable[[h5py.File], None]:
    stored = {"chunks": np.shape(values), "fletcher32": True, **stored}
    return lambda file: _replace_vectors(file, data=values, **stored)


def _group(file: h5py.File) -> None:
    del file["outputs/embedding"]
    file.create_group("outputs/embedding")


def _same_under_many_names(file: h5py.File) -> None:
    for other in range(3):
        file[f"outputs/other {other}"] = file["outputs/embedding"]


def _attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


ROWS = np.zeros((N_ROWS, 9), np.float32)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (
            _link("outputs/embedding", h5py.ExternalLink("elsewhere.h5", "/x")),
            "/outputs/embedding is a link",
        ),
        (_link("outputs", h5py.SoftLink("/keys")), "/outputs is a link"),
        (_link("keys", h5py.SoftLink("/outputs/embedding")), "/keys is a link"),
        (lambda file: file.__delitem__("outputs"), "/outputs is missing"),
        (lambda file: file["outputs"].__delitem__("embedding"), "no outputs"),
        (_virtual, "not in chunks"),
        (_external, "not in chunks"),
        (_unwritten, r"\d+ bytes, .* file has"),
        (_vectors(ROWS, fletcher32=False), "not in chunks"),
        (_vectors(ROWS, compression="gzip"), "not in chunks"),
        (_vectors(ROWS, chunks=(N_ROWS, 3)), "not in chunks"),
        (_vectors(ROWS[:, :, None]), "the shape"),
        (_vectors(ROWS[:, 0]), "the shape"),
        (_vectors(ROWS.astype(np.float64)), "the type float64"),
        (_vectors(ROWS.astype(np.int32)), "the type int32"),
        (
            _vectors(
                np.full((N_ROWS, 9), "a", object), dtype=h5py.string_dtype(), fletcher32=False
            ),
            "the type object",
        ),
        (_vectors(ROWS[:3]), "4 keys, but 3 rows"),
        (_group, "frames is missing"),
        (_same_under_many_names, "more than one name"),
        (_attribute("schema_version", "two"), "'schema_version'"),
        (_attribute("schema_version", [1, 1]), "'schema_version'"),
        (_attribute("belongs_to", "toy"), "'belongs_to'"),
        (_attribute("generation", -1), "'generation' is -1"),
        (lambda file: file["keys"].__setitem__(0, b"x" * 32), "hexadecimal"),
    ],
)
def test_a_file_of_another_structure_is_refused(
    segment: Path, edit: Callable[[h5py.File], None], reason: str
) -> None:
    segment = change(segment, edit)
    with pytest.raises(CacheError, match=reason) as caught:
        assert_rows(segment.parent.parent, range(N_ROWS), "vectors")
    assert str(segment) in str(caught.value)
    assert "Move it out of the store" in str(caught.value)
    ((path, fault),) = FeatureCache(segment.parent.parent).verify()
    assert path == segment
    assert fault is not None
    assert re.search(reason, fault)


def test_data_sets_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    shape = (N_ROWS, 1 << 16)
    outputs = {name: np.full(shape, i, np.float32) for i, name in enumerate("abc")}
    image = segment_image(STORE, "text", KEYS, outputs)
    path = tmp_path / STORE.folder / f"text-{bytes_digest(image)}.h5"
    path.parent.mkdir()
    path.write_bytes(image)
    n_bytes = len(image) // 2  # each of the three fits by itself
    with (
        h5py.File(path) as file,
        pytest.raises(ValueError, match=r"data sets .* bytes"),
    ):
        _checked(file, n_bytes)


@pytest.mark.parametrize(
    "offsets", [[0, 3], [1, 3, 4], [0, 0, 4], [0, 3, 5], [0, 2**63 - 1, 4], [0, -3, 4]]
)
def test_offsets_that_lead_elsewhere_are_refused(tmp_path: Path, offsets: list[int]) -> None:
    folder = tmp_path / STORE.folder
    write_rows(tmp_path, range(2), "sequences")
    path = only_segment(tmp_path)

    def edit(file: h5py.File) -> None:
        for name, values in {
            "offsets": np.array(offsets),
            "frames": np.zeros((4, 9), "f4"),
        }.items():
            del file[f"outputs/float32/{name}"]
            file["outputs/float32"].create_dataset(
                name, data=values, chunks=values.shape, fletcher32=True
            )

    path = change(path, edit)
    with pytest.raises(CacheError, match="from 0 to 4|2 keys, but 1 rows"):
        assert_rows(tmp_path, range(2), "sequences")
    ((found, fault),) = FeatureCache(tmp_path).verify()
    assert (found, folder) == (path, path.parent)
    assert fault is not None


def test_an_output_of_another_size_is_refused(segment: Path) -> None:
    other = write_segment(
        segment.parent,
        STORE,
        "text",
        np.array([text_key("9")], dtype=KEY_DTYPE),
        {"embedding": np.ones((1, 5), np.float32)},
    )
    with pytest.raises(CacheError, match="vectors of [59] float32") as caught:
        assert_rows(segment.parent.parent, [0, 9], "vectors")
    assert str(segment) in str(caught.value)
    assert str(other) in str(caught.value)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(segment: Path) -> None:
    pipe = segment.with_name("text-pipe.h5")
    os.mkfifo(pipe)
    with pytest.raises(CacheError, match="text-pipe.h5: .*regular file"):
        read_keys(pipe)
    folder = segment.with_name("text-folder.h5")
    folder.mkdir()
    faults = {path: fault for path, fault in FeatureCache(segment.parent.parent).verify() if fault}
    assert set(faults) == {pipe, folder}


def test_a_segment_may_be_a_symbolic_link(segment: Path, tmp_path: Path) -> None:
    elsewhere = segment.rename(tmp_path / "elsewhere")
    segment.symlink_to(elsewhere)
    assert_rows(tmp_path, range(N_ROWS), "vectors")
    elsewhere.unlink()
    with (
        pytest.raises(CacheError, match="symbolic link"),
        open_segment(segment),
    ):
        pass
