"""Files of every kind that a stranger may hand over, spoiled at random, and what is done with them.

Each target writes good files, names those that are spoiled, and uses them as the library does.  A
use ends in one of two ways: it returns what the files say (`"used"`), or one of our errors says
what is wrong with them (`"refused"`).  Everything else is a fault.
"""

import csv
import hashlib
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import soundfile
from numpy.random import Generator

from xacle_stack import (
    EncoderChoice,
    FeatureCache,
    Stacker,
    XacleStackError,
    extract_embeddings,
    load_model,
    read_clip,
    read_pairs,
    read_predictions,
    save_model,
    write_predictions,
)
from xacle_stack._large_arrays import LargeArrays
from xacle_stack.pairs import read_splits
from xacle_stack.recipe import read_recipe

try:
    import av
except ImportError:
    av = None
try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError:
    pa = parquet = None

_EXTREMES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**64, -(2**40), 1e308, -0.0, 1e-320, 10**30),
    *("", "x", "/dev/zero", "../../x", "\x1b[2J", "=1+1", "é" * 3, "a" * 100_000),
    *([], {}, [[[[[[]]]]]], {"__class__": "system", "__module__": "os"}),
)
_NPY_HEADERS = (
    "{'descr': '<f8', 'fortran_order': False, 'shape': (5000000000,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f8', 'fortran_order': True, 'shape': (-1, 4), }",
    "{'descr': '<i8', 'fortran_order': False, 'shape': (), }",
)


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Attributes
    ----------
    prepare : callable
        Writes good files into a folder.
    spoil : callable
        Changes one of them.
    use : callable
        Does what the library does with them.
    """

    prepare: Callable[[Path], None]
    spoil: Callable[[Generator, Path], None]
    use: Callable[[Path], object]


def outcome(target: Target, folder: Path) -> str:
    """Use the files of a folder: `"used"` or `"refused"`; any other exception is a fault."""
    try:
        with np.errstate(all="ignore"):
            target.use(folder)
    except XacleStackError as error:
        if not str(error).strip():
            raise AssertionError("an error without a message") from error
        return "refused"
    return "used"


def spoiled(target: Target, good: Path, seed: int, folder: Path) -> Path:
    """Copy good files into a new folder and spoil one of them."""
    shutil.copytree(good, folder)
    target.spoil(np.random.default_rng(seed), folder)
    return folder


def spoil_bytes(rng: Generator, content: bytes) -> bytes:
    """Return content with some bytes flipped, set, cut out, doubled or added."""
    data = bytearray(content or b"\0")
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, 1 + min(64, len(data) - start)))
    match rng.integers(7):
        case 0 | 1:
            for place in rng.integers(len(data), size=rng.integers(1, 9)):
                data[place] ^= 1 << int(rng.integers(8))
        case 2:
            data[start : start + length] = bytes([int(rng.choice([0, 255]))]) * length
        case 3:
            del data[start:]
        case 4:
            del data[start : start + length]
        case 5:
            data[start:start] = data[start : start + length]
        case 6:
            data += rng.bytes(length)
    return bytes(data)


def spoil_json(rng: Generator, value: Any) -> Any:
    """Return a JSON value with one place in it replaced, removed or renamed."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[int(rng.integers(len(keys)))]
        changed = value.copy()
        match rng.integers(8):
            case 0:
                del changed[key]
            case 1:
                other = keys[int(rng.integers(len(keys)))]
                changed[key] = value[other]
            case _:
                changed[key] = spoil_json(rng, value[key])
        return changed
    return _EXTREMES[int(rng.integers(len(_EXTREMES)))]


def _spoil_a_file(pattern: str) -> Callable[[Generator, Path], None]:
    def spoil(rng: Generator, folder: Path) -> None:
        path = _any(rng, sorted(folder.rglob(pattern)))
        path.write_bytes(spoil_bytes(rng, path.read_bytes()))

    return spoil


def _any(rng: Generator, things: list[Any]) -> Any:
    return things[int(rng.integers(len(things)))]


# Models -----------------------------------------------------------------------------------------

_MODEL_X = np.random.default_rng(1).normal(size=(40, 6))


def _write_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    X = np.random.default_rng(0).normal(size=(60, 6))
    for preset in ("best", "paper"):
        stacker = Stacker(preset=preset, n_splits=2, n_components=4, random_state=0)
        stacker.fit(X, 5 + X[:, 0])
        stacker.weights_ = LargeArrays({"w": X, "b": X[0]})
        save_model(folder / f"{preset}.skops", stacker)


def spoil_model(rng: Generator, folder: Path) -> None:
    """Change a model file and sign it anew in its card, or change the card, or just flip bytes."""
    path = _any(rng, sorted(folder.glob("*.skops")))
    kind = rng.integers(7)
    if kind == 0:
        _spoil_a_file("*.s*")(rng, folder)
        return
    card_path = path.with_suffix(".json")
    card = json.loads(card_path.read_text())
    if kind == 1:
        card_path.write_text(json.dumps(spoil_json(rng, card)))
        return
    if kind == 2:
        path.write_bytes(spoil_bytes(rng, path.read_bytes()))
    elif kind == 6:
        tensors = path.with_suffix(".safetensors")
        tensors.write_bytes(spoil_bytes(rng, tensors.read_bytes()))
        card["tensors_digest"] = hashlib.blake2b(tensors.read_bytes(), digest_size=16).hexdigest()
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = "schema.json" if kind == 3 else _any(rng, sorted(members))
        members[name] = _spoil_member(rng, name, members[name])
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
    card["model_digest"] = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    card_path.write_text(json.dumps(card))


def _spoil_member(rng: Generator, name: str, content: bytes) -> bytes:
    if name.endswith(".json"):
        return json.dumps(spoil_json(rng, json.loads(content))).encode()
    if not name.endswith(".npy") or rng.random() < 0.3:
        return spoil_bytes(rng, content)
    if rng.random() < 0.3:
        header = _any(rng, list(_NPY_HEADERS)).encode().ljust(117) + b"\n"
        return content[:8] + struct.pack("<H", len(header)) + header + content[128:]
    values = np.load(BytesIO(content), allow_pickle=False)
    if values.size and values.dtype.kind in "fiu":
        extreme = _any(rng, [-1, 0, 1, 2**31 - 1, 10**9])
        if values.dtype.kind == "f":
            extreme = _any(rng, [np.nan, np.inf, -1e308, 1e308, 0.0])
        if values.dtype.kind == "u":
            extreme = abs(extreme)
        with np.errstate(over="ignore"):
            values.flat[int(rng.integers(values.size))] = np.asarray(extreme).astype(values.dtype)
    image = BytesIO()
    np.save(image, _any(rng, [values, values.ravel()[:-1], values[..., np.newaxis]]))
    return image.getvalue()


def _use_model(folder: Path) -> None:
    for preset in ("best", "paper"):
        stacker = load_model(folder / f"{preset}.skops")
        predicted = stacker.predict(_MODEL_X)
        if isinstance(large := vars(stacker).get("weights_"), LargeArrays):
            for array in large.values():
                array.tobytes()
        if predicted.shape != (40,):
            raise AssertionError(f"predictions of shape {predicted.shape}")


# Segments of the cache ---------------------------------------------------------------------------

_PREPARED_CLIPS = 6


def _write_store(folder: Path) -> None:
    _write_data(folder)
    pairs = read_pairs(folder / "data", "test")
    extract_embeddings([pairs], [EncoderChoice("mini-mel")], folder / "store")


def spoil_segment(rng: Generator, folder: Path) -> None:
    """Change a segment and name it by the hash of what it holds then, or just flip bytes."""
    path = _any(rng, sorted((folder / "store").rglob("*.h5")))
    if rng.random() < 0.5:
        path.write_bytes(spoil_bytes(rng, path.read_bytes()))
    else:
        _edit_segment(rng, path)
    if rng.random() < 0.6:
        digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        path.rename(path.with_name(f"{path.stem.partition('-')[0]}-{digest}.h5"))


def _edit_segment(rng: Generator, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        match rng.integers(8):
            case 0:
                name = _any(rng, sorted(file.attrs))
                file.attrs[name] = _any(rng, [-1, 99, "x", "", np.zeros(3)])
            case 1:
                del file.attrs[_any(rng, sorted(file.attrs))]
            case 2:
                del file[_any(rng, ["keys", "outputs", "outputs/embedding"])]
            case 3:
                del file["outputs/embedding"]
                file["outputs/embedding"] = h5py.ExternalLink("/etc/passwd", "/x")
            case 4:
                del file["outputs/embedding"]
                file.create_dataset("outputs/embedding", shape=(2**40, 64), dtype="f4")
            case 5:
                n_rows = len(file["keys"])
                del file["outputs/embedding"]
                file["outputs/embedding"] = np.full((n_rows, _any(rng, [0, 1, 64])), np.nan, "f4")
            case 6:
                keys = file["keys"][:]
                del file["keys"]
                file["keys"] = _any(rng, [keys[:-1], keys.astype("S31"), np.zeros(len(keys))])
            case 7:
                layout = h5py.VirtualLayout(shape=file["outputs/embedding"].shape, dtype="f4")
                layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=layout.shape)
                del file["outputs/embedding"]
                file.create_virtual_dataset("outputs/embedding", layout)


def _use_store(folder: Path) -> None:
    cache = FeatureCache(folder / "store")
    cached = cache.load(read_pairs(folder / "data", "test"))
    for vectors in (cached.audio("mini-mel"), cached.text("mini-mel")):
        if len(vectors) != _PREPARED_CLIPS or vectors.dtype != np.float32:
            raise AssertionError(f"vectors {vectors.shape} {vectors.dtype}")
    list(cache.verify())
    cache.summaries()


# Data sets, recipes, predictions, audio ----------------------------------------------------------


def _write_data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    meta, wav = folder / "data" / "meta_data", folder / "data" / "wav" / "test"
    meta.mkdir(parents=True)
    wav.mkdir(parents=True)
    rows, ratings = ["wav_file_name,text,average_score"], ["wav_file_name,text,score,listener_id"]
    for number in range(_PREPARED_CLIPS):
        soundfile.write(wav / f"{number}.wav", rng.normal(scale=0.1, size=1600), 16_000)
        rows.append(f'{number}.wav,"sound, number {number}",{number}.5')
        ratings.append(f'{number}.wav,"sound, number {number}",{number},L1')
        ratings.append(f'{number}.wav,"sound, number {number}",{number + 1},L2')
    (meta / "test_average.csv").write_text("\n".join(rows) + "\n")
    (meta / "test.csv").write_text("\n".join(ratings) + "\n")


def _spoil_csv(rng: Generator, folder: Path) -> None:
    path = _any(rng, sorted(folder.rglob("*.csv")))
    lines = path.read_text().splitlines()
    fields = [line.split(",") for line in lines]
    if rng.random() < 0.4:
        _spoil_a_file("*.csv")(rng, folder)
        return
    row = fields[int(rng.integers(len(fields)))]
    cells = ["", "nan", "0_5", "١", "1e400", "-0", '"', '"" "', "=1", "../x.wav", "a" * 200_000]
    row[int(rng.integers(len(row)))] = _any(rng, [*cells, "\x1b[31m", "a\tb", "\ufeff", "\u202e"])
    path.write_text("\n".join(",".join(fields_of_row) for fields_of_row in fields), "utf-8")


def _use_data(folder: Path) -> None:
    pairs = read_pairs(folder / "data", "test")
    if pairs.scores is not None and not ((pairs.scores >= 0) & (pairs.scores <= 10)).all():
        raise AssertionError(f"scores {pairs.scores}")


def _write_scores(folder: Path) -> None:
    ids = [f"{number}.wav" for number in range(_PREPARED_CLIPS)]
    write_predictions(folder / "scores.csv", ids, np.arange(float(_PREPARED_CLIPS)), "test")


def _use_scores(folder: Path) -> None:
    ids = [f"{number}.wav" for number in range(_PREPARED_CLIPS)]
    if not np.isfinite(read_predictions(folder / "scores.csv", ids)).all():
        raise AssertionError("predictions that are not finite")


_RECIPE = """\
spaces = ["mini-mel", "mini-mfcc"]
auxiliary = ["mini-mod:embedding"]
precision = "float32"
compare = ["singles"]
seeds = 2
[checkpoints]
mini-mel = "weights.npz"
[views]
mini-mel = 2
[features]
n_components = 4
[stacker]
preset = "paper"
penalties = [1.0, 10.0]
[systems.mine]
kind = "transformer"
space = "mini-mel"
"""


def _write_recipe(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(_RECIPE)


def _spoil_recipe(rng: Generator, folder: Path) -> None:
    if rng.random() < 0.5:
        _spoil_a_file("*.toml")(rng, folder)
        return
    lines = _RECIPE.splitlines()
    places = [place for place, line in enumerate(lines) if "=" in line]
    place = _any(rng, places)
    name = lines[place].partition("=")[0]
    shown = json.dumps(_any(rng, [value for value in _EXTREMES if value is not None]))
    lines[place] = f"{name}= {shown}"
    (folder / "recipe.toml").write_text("\n".join(lines))


def _write_audio(folder: Path) -> None:
    folder.mkdir(parents=True)
    samples = np.random.default_rng(0).normal(scale=0.1, size=8000)
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"):
        soundfile.write(folder / name, samples, 16_000)
    soundfile.write(folder / "float.wav", samples, 16_000, subtype="FLOAT")


def _spoil_audio(rng: Generator, folder: Path) -> None:
    """Spoil one file, half of the time in its header; the others are taken away."""
    path = _any(rng, sorted(folder.iterdir()))
    for other in folder.iterdir():
        if other != path:
            other.unlink()
    content = path.read_bytes()
    if rng.random() < 0.5:
        place = int(rng.integers(4, 64)) // 4 * 4
        field = struct.pack("<I", int(_any(rng, [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 10**6])))
        path.write_bytes(content[:place] + field + content[place + 4 :])
    else:
        path.write_bytes(spoil_bytes(rng, content))


def _use_audio(folder: Path) -> None:
    (path,) = folder.iterdir()
    mono = read_clip(path).mono(16_000)
    if not len(mono) or not np.isfinite(mono).all():
        raise AssertionError("samples that are none or not finite")


_CONTAINERS = {"a.m4a": "aac", "a.mov": "alac", "a.webm": "libopus", "a.mkv": "flac", "a.ts": "aac"}


def _write_containers(folder: Path) -> None:
    folder.mkdir(parents=True)
    samples = np.random.default_rng(0).normal(scale=0.1, size=(1, 8000)).astype(np.float32)
    for name, codec in _CONTAINERS.items():
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=48_000)
            stream.layout = "mono"
            stream.codec_context.open(strict=False)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, 0
            resampler = av.AudioResampler(
                stream.codec_context.format,
                "mono",
                48_000,
                frame_size=stream.codec_context.frame_size,
            )
            for part in [*resampler.resample(frame), *resampler.resample(None), None]:
                container.mux(stream.encode(part))


_TABLE = [
    {"id": str(i), "audio": f"{i}.wav", "text": f'"sound", number {i}', "score": i, "split": "a"}
    for i in range(_PREPARED_CLIPS)
]


def _write_tables(folder: Path) -> None:
    folder.mkdir(parents=True)
    for row in _TABLE:
        soundfile.write(folder / row["audio"], np.full(100, 0.1), 8000)
    header = list(_TABLE[0])
    for ending, mark in {"csv": ",", "tsv": "\t"}.items():
        with (folder / f"t.{ending}").open("w", newline="") as file:
            writer = csv.writer(file, delimiter=mark)
            writer.writerows([header, *([row[name] for name in header] for row in _TABLE)])
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _TABLE))
    if parquet is not None:
        columns = {name: [row[name] for row in _TABLE] for name in header}
        parquet.write_table(pa.table(columns), folder / "t.parquet")


def _spoil_table(rng: Generator, folder: Path) -> None:
    """Spoil one table, the text of a JSONL half of the time in its values."""
    path = _any(rng, sorted(folder.glob("t.*")))
    for other in folder.glob("t.*"):
        if other != path:
            other.unlink()
    if path.suffix == ".jsonl" and rng.random() < 0.5:
        rows = spoil_json(rng, _TABLE)
        rows = rows if isinstance(rows, list) else [rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv" and rng.random() < 0.5:
        _spoil_csv(rng, folder)
    else:
        path.write_bytes(spoil_bytes(rng, path.read_bytes()))


def _use_tables(folder: Path) -> None:
    for path in folder.glob("t.*"):
        for pairs in read_splits(path).values():
            if len(pairs.audio) != len(pairs) or not len(pairs):
                raise AssertionError("pairs without clips")


def _make_folder_then(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        folder.mkdir(parents=True)
        write(folder)

    return prepare


TARGETS = {
    "model and card": Target(_write_model, spoil_model, _use_model),
    "cache segment": Target(_make_folder_then(_write_store), spoil_segment, _use_store),
    "data set's CSV": Target(_make_folder_then(_write_data), _spoil_csv, _use_data),
    "predictions": Target(_make_folder_then(_write_scores), _spoil_csv, _use_scores),
    "recipe": Target(_write_recipe, _spoil_recipe, lambda f: read_recipe(f / "recipe.toml")),
    "audio": Target(_write_audio, _spoil_audio, _use_audio),
    "table": Target(_write_tables, _spoil_table, _use_tables),
}
if av is not None:
    TARGETS["container"] = Target(_write_containers, _spoil_audio, _use_audio)
