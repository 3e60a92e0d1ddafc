"""What several test files share beside fixtures."""

import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from xacle_stack.cache import StoreId
from xacle_stack.encoders import EncoderChoice
from xacle_stack.features import PairEmbeddings

TESTS = Path(__file__).parent
REAL_DATA = TESTS.parent.parent / "shared" / "data"
TOY = EncoderChoice(f"{TESTS / 'toy_encoder.py'}:ToySpace")
BATCH_TOY = EncoderChoice(f"{TESTS / 'toy_encoder.py'}:BatchToy")
STORE = StoreId("toy", "0123456789abcdef")

WriteData = Callable[..., Path]


def write_csv(path: Path, rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_split(data: Path, split: str, n_pairs: int, seed: int) -> None:
    """Write tones whose pitch the caption names, rightly or not, with scores that say so."""
    rng = np.random.default_rng(seed)
    wav = data / "wav" / split
    wav.mkdir(parents=True)
    average: list[list[object]] = [["wav_file_name", "text", "average_score"]]
    ratings: list[list[object]] = [["wav_file_name", "text", "score", "listener_id"]]
    pitches = {"low": 300, "middle": 900, "high": 2700}
    for number in range(n_pairs):
        name, word = f"{number:05d}.wav", rng.choice(list(pitches))
        caption = f"a {word} tone number {rng.integers(max(1, n_pairs // 2))}"
        heard = rng.choice(list(pitches))
        time = np.arange(1600) / 8000
        noise = rng.normal(scale=0.05, size=len(time))
        tone = 0.4 * np.sin(2 * np.pi * pitches[heard] * time) + noise
        soundfile.write(wav / name, tone, 8000, subtype="PCM_16")
        scores = np.clip(rng.integers(0, 3, size=4) + (7 if word == heard else 0), 0, 10)
        average.append([name, caption, scores.mean()])
        ratings += [[name, caption, score, f"L{i}"] for i, score in enumerate(scores)]
    write_csv(data / "meta_data" / f"{split}_average.csv", average)
    write_csv(data / "meta_data" / f"{split}.csv", ratings)


def hf_dataset(columns: dict[str, list[Any]]) -> Any:
    """Return a Hugging Face Dataset, where the package is installed and works."""
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what hashes its content
        return datasets.Dataset.from_dict(columns)


def random_embeddings(seed: int, n_pairs: int = 40) -> PairEmbeddings:
    """Return two spaces and an auxiliary of random numbers."""
    rng = np.random.default_rng(seed)
    spaces = {
        name: tuple(rng.normal(size=(2, n_pairs, n_dims)).astype(np.float32))
        for name, n_dims in {"one": 6, "two": 9}.items()
    }
    auxiliary = {"tags:logits": rng.normal(size=(n_pairs, 3)).astype(np.float32)}
    return PairEmbeddings(spaces, auxiliary, [f"{seed}-{row}" for row in range(n_pairs)])


def toy_that(tmp_path: Path, action: str) -> EncoderChoice:
    """Return an encoder that acts at its third batch, in one process of those that encode."""
    source = Path(TOY.name.rpartition(":")[0]).read_text()
    path = tmp_path / "acting.py"
    path.write_text(f"""{source}

import os, pathlib, signal, time

class Acting(ToySpace):
    n_batches = 0

    def encode_audio(self, clips):
        self.n_batches += 1
        if self.n_batches == 3:
            try:
                pathlib.Path({str(tmp_path / "acted")!r}).touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                {action}
        return super().encode_audio(clips)
""")
    return EncoderChoice(f"{path}:Acting")
