import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support import BATCH_TOY, TOY, WriteData, toy_that

from xacle_stack import extract
from xacle_stack.audio import Clip, SampleSource, read_clip
from xacle_stack.cache import CachedSequences, FeatureCache, StoreWriter
from xacle_stack.encoders import EncoderChoice, batches, view_name
from xacle_stack.errors import EncoderError
from xacle_stack.extract import extract_embeddings, store_id
from xacle_stack.pairs import Pairs, read_pairs
from xacle_stack.submission import read_predictions, write_predictions

FRAMES_TOY = EncoderChoice(TOY.name.replace("ToySpace", "ToyFrames"))


def table(root: Path, pairs: Pairs, encoder: str = "toy") -> bytes:
    """Return every vector of the pairs as bytes."""
    cached = FeatureCache(root).load(pairs)
    arrays = [cached.audio(encoder), cached.audio(encoder, "level"), cached.text(encoder)]
    if encoder != "toy":
        arrays += cached.audio_sequences(encoder)[:]
        arrays += CachedSequences(cached, encoder, "text", "letters")[:]
    return b"".join(array.tobytes() for array in arrays)


def test_the_cache_holds_what_the_encoder_returns(make_data: WriteData, tmp_path: Path) -> None:
    pairs = read_pairs(make_data(train=20), "train")
    report = extract_embeddings([pairs], [TOY], tmp_path / "store")
    encoder = TOY.encoder.load()
    cached = FeatureCache(tmp_path / "store").load(pairs)
    clips = [read_clip(path).mono(8000) for path in pairs.audio]
    np.testing.assert_array_equal(
        cached.audio("toy"), encoder.encode_audio(clips)["embedding"].astype(np.float32)
    )
    np.testing.assert_array_equal(
        cached.text("toy"), encoder.encode_text(pairs.captions)["embedding"].astype(np.float32)
    )
    assert report.encoded == {("toy", "audio"): 20, ("toy", "text"): len(set(pairs.captions))}
    assert not report.failures


def test_samples_in_memory_are_the_clips_of_files_with_them(
    make_data: WriteData, tmp_path: Path
) -> None:
    pairs = read_pairs(make_data(test=4), "test")
    clips = [read_clip(path) for path in pairs.audio]
    sources = [
        SampleSource(clip.samples, clip.sample_rate_hz, f"row {n}") for n, clip in enumerate(clips)
    ]
    in_memory = replace(pairs, audio=sources)
    assert extract_embeddings([pairs], [TOY], tmp_path / "store").encoded["toy", "audio"] == 4
    again = extract_embeddings([in_memory], [TOY], tmp_path / "store")
    assert (again.encoded["toy", "audio"], again.reused["toy", "audio"]) == (0, 4)
    cache = FeatureCache(tmp_path / "store")
    np.testing.assert_array_equal(
        cache.load(in_memory).audio("toy"), cache.load(pairs).audio("toy")
    )


def test_one_clip_under_several_captions(make_data: WriteData, tmp_path: Path) -> None:
    data = make_data(test=2)
    for name in ("test", "test_average"):
        (data / "meta_data" / f"{name}.csv").unlink()
    rows = ["00000.wav,a low tone", "00001.wav,a high tone", "00000.wav,a high tone"]
    (data / "meta_data" / "test.csv").write_text("wav_file_name,text\n" + "\n".join(rows))
    pairs = read_pairs(data, "test")
    report = extract_embeddings([pairs], [TOY], tmp_path / "store")
    assert report.encoded == {("toy", "audio"): 2, ("toy", "text"): 2}
    cached = FeatureCache(tmp_path / "store").load(pairs)
    audio, text = cached.audio("toy"), cached.text("toy")
    np.testing.assert_array_equal(audio[0], audio[2])
    np.testing.assert_array_equal(text[1], text[2])
    assert not np.array_equal(audio[0], audio[1])
    assert cached.take([2, 0]).pair_ids == ("00000.wav#2", "00000.wav#1")
    write_predictions(tmp_path / "scores.csv", cached.pair_ids, [1, 2, 3], "test")
    turned = pairs.take([2, 0, 1])
    assert read_predictions(tmp_path / "scores.csv", turned.ids).tolist() == [3, 1, 2]


def test_the_cache_holds_the_sequences_that_the_encoder_returns(
    make_data: WriteData, tmp_path: Path
) -> None:
    pairs = read_pairs(make_data(train=20), "train")
    soundfile.write(pairs.audio[3], np.full(30, 0.25), 8000)
    extract_embeddings([pairs], [FRAMES_TOY], tmp_path / "store")
    encoder = FRAMES_TOY.encoder.load()
    cached = FeatureCache(tmp_path / "store").load(pairs)
    clips = [read_clip(path).mono(8000) for path in pairs.audio]
    frames = encoder.encode_audio(clips)["frames"]
    letters = encoder.encode_text(pairs.captions)["letters"]
    assert len({len(sequence) for sequence in letters}) > 1
    for found, sequence in zip(cached.audio_sequences("toy-frames")[:], frames, strict=True):
        np.testing.assert_array_equal(found, sequence.astype(np.float16))
    assert cached.audio_sequences("toy-frames").lengths.tolist() == [16] * 3 + [1] + [16] * 16
    found = CachedSequences(cached, "toy-frames", "text", "letters")
    for row, sequence in enumerate(letters):
        np.testing.assert_array_equal(found[row], sequence.astype(np.float32))
    np.testing.assert_array_equal(
        cached.audio("toy-frames"), encoder.encode_audio(clips)["embedding"].astype(np.float32)
    )


def test_a_second_run_encodes_nothing(make_data: WriteData, tmp_path: Path, monkeypatch) -> None:
    pairs = read_pairs(make_data(train=10), "train")
    extract_embeddings([pairs], [TOY], tmp_path / "store")
    before = sorted(tmp_path.joinpath("store").rglob("*.h5"))
    monkeypatch.setattr(TOY.encoder, "load", None)
    monkeypatch.setattr("xacle_stack.extract.read_clip", None)
    report = extract_embeddings([pairs], [TOY], tmp_path / "store")
    assert report.encoded.total() == 0
    assert report.reused["toy", "audio"] == 10
    assert report.reused["toy", "text"] == len(set(pairs.captions))
    assert sorted(tmp_path.joinpath("store").rglob("*.h5")) == before


def test_content_is_encoded_once_under_any_name(make_data: WriteData, tmp_path: Path) -> None:
    data = make_data(train=9, validation=9)
    wav = data / "wav"
    for name in ("00001.wav", "00002.wav"):
        shutil.copy(wav / "train" / "00000.wav", wav / "train" / name)
    shutil.copy(wav / "train" / "00000.wav", wav / "validation" / "00005.wav")
    splits = [read_pairs(data, split) for split in ("train", "validation")]
    report = extract_embeddings(splits, [TOY], tmp_path / "store", batch_size=2)
    assert report.encoded["toy", "audio"] == 18 - 3
    captions = {caption for pairs in splits for caption in pairs.captions}
    assert report.encoded["toy", "text"] == len(captions) < 18
    audio = FeatureCache(tmp_path / "store").load(splits[0]).audio("toy")
    np.testing.assert_array_equal(audio[0], audio[2])


@pytest.mark.parametrize(("batch_size", "n_jobs"), [(1, 1), (7, 2), (64, -1)])
def test_batches_and_workers_change_nothing(
    make_data: WriteData, tmp_path: Path, batch_size: int, n_jobs: int
) -> None:
    pairs = read_pairs(make_data(train=20), "train")
    extract_embeddings([pairs], [TOY], tmp_path / "expected")
    extract_embeddings([pairs], [TOY], tmp_path / "store", batch_size=batch_size, n_jobs=n_jobs)
    assert table(tmp_path / "store", pairs) == table(tmp_path / "expected", pairs)


def test_bad_files_are_listed_and_the_others_kept(make_data: WriteData, tmp_path: Path) -> None:
    data = make_data(train=12)
    pairs = read_pairs(data, "train")
    cut, text, empty, nan = pairs.audio[1:5]
    cut.write_bytes(cut.read_bytes()[:-500])
    text.write_text("this is a text file")
    empty.write_bytes(b"")
    soundfile.write(nan, np.full(800, np.nan), 8000, subtype="FLOAT")
    report = extract_embeddings([pairs], [TOY], tmp_path / "store", n_jobs=2)
    assert {path: message.split(": ")[1][:9] for path, message in report.failures.items()} == {
        cut: "truncated",
        text: "not reada",
        empty: "the file ",
        nan: "800 of 80",
    }
    good = pairs.take([0, *range(5, 12)])
    assert FeatureCache(tmp_path / "store").load(good).audio("toy").shape == (8, 6)
    # Mended files, and only they, are encoded by the next run.
    for path in (cut, text, empty, nan):
        soundfile.write(path, np.full(800, 0.1 + len(path.name) / 100), 8000)
    assert extract_embeddings([pairs], [TOY], tmp_path / "store").encoded["toy", "audio"] == 1


def test_a_sequence_that_breaks_the_contract_stores_nothing_of_that_batch(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=6), "train")
    good = FRAMES_TOY.encoder.encode_audio
    monkeypatch.setattr(
        FRAMES_TOY.encoder,
        "encode_audio",
        lambda self, clips: good(self, clips) | {"frames": [np.zeros((0, 100)) for _ in clips]},
    )
    with pytest.raises(EncoderError, match=r"'frames', item 0 of a batch of 6: .*got \(0, 100\)"):
        extract_embeddings([pairs], [FRAMES_TOY], tmp_path / "store")
    monkeypatch.undo()
    report = extract_embeddings([pairs], [FRAMES_TOY], tmp_path / "store")
    assert report.encoded["toy-frames", "audio"] == 6


BAD = 0.987  # a level that no other clip has


def failing_on_the_bad(
    encoder: type, monkeypatch, error: type[Exception] = ZeroDivisionError
) -> None:
    """Let an encoder fail on every batch that holds a clip of the level BAD or the word bad."""
    encode_audio, encode_text = encoder.encode_audio, encoder.encode_text

    def audio(self, clips):
        if any(abs(clip[-1] - BAD) < 1e-3 for clip in clips):
            raise error("over the top")
        return encode_audio(self, clips)

    def text(self, captions):
        if any("bad" in caption for caption in captions):
            raise error("beyond words")
        return encode_text(self, captions)

    monkeypatch.setattr(encoder, "encode_audio", audio)
    monkeypatch.setattr(encoder, "encode_text", text)


def spoil(pairs: Pairs, *rows: int) -> list[Path]:
    """Make clips that an encoder fails on, each its own, and return their files."""
    paths = [pairs.audio[row] for row in rows]
    for n, path in enumerate(paths):
        soundfile.write(path, np.append(np.full(1599, n / 100), BAD), 8000)
    return paths


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("error", [ZeroDivisionError, MemoryError])
def test_clips_and_captions_that_an_encoder_fails_on_are_named_and_the_others_kept(
    make_data: WriteData, tmp_path: Path, monkeypatch, batch_size: int, error: type[Exception]
) -> None:
    pairs = read_pairs(make_data(train=12), "train")
    captions = (*pairs.captions[:11], "a bad caption")
    pairs = replace(pairs, captions=captions)
    bad = spoil(pairs, 2, 3, 7)
    shutil.copy(bad[0], pairs.audio[8])
    bad.append(pairs.audio[8])
    failing_on_the_bad(BATCH_TOY.encoder, monkeypatch, error)
    for _ in range(2):
        report = extract_embeddings([pairs], [BATCH_TOY], tmp_path / "store", batch_size=batch_size)
        assert set(report.failures) == {*bad, "a bad caption"}
        for path in bad:
            assert f"{path}: encoder 'batch-toy', encode_audio: " in report.failures[path]
        told = report.failures["a bad caption"]
        assert "caption 'a bad caption': encoder 'batch-toy', encode_text: " in told
        if error is ZeroDivisionError:
            assert "ZeroDivisionError: beyond words (" in told
        else:
            assert "there is too little memory" in told
    assert report.encoded.total() == 0
    assert report.reused["batch-toy", "audio"] == 8
    good = FeatureCache(tmp_path / "store").load(pairs.take([0, 1, 4, 5, 6, 9, 10]))
    assert good.audio("batch-toy").shape == (7, 6)


def test_a_clip_that_fails_leaves_the_bytes_of_the_others_alone_even_after_an_interrupt(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=20), "train")
    bad = spoil(pairs, 4, 5, 13)
    good = pairs.take([row for row in range(20) if pairs.audio[row] not in bad])
    # All captions, but only the good clips.
    monkeypatch.setattr("xacle_stack.extract.clip_duration", lambda path: path not in bad)
    pairs_without = replace(
        pairs,
        audio=tuple(pairs.audio[0] if path in bad else path for path in pairs.audio),
    )
    extract_embeddings([pairs_without], [BATCH_TOY], tmp_path / "expected", batch_size=3)
    failing_on_the_bad(BATCH_TOY.encoder, monkeypatch)
    extract_embeddings([pairs], [BATCH_TOY], tmp_path / "whole", batch_size=3)
    expected = table(tmp_path / "expected", good, "batch-toy")
    assert table(tmp_path / "whole", good, "batch-toy") == expected

    n_rows, append = 0, StoreWriter.append

    def interrupted(self, keys, outputs):
        nonlocal n_rows
        append(self, keys, outputs)
        n_rows += len(keys) if self.folder.parent.name == "cut" and "audio" in self._modality else 0
        if n_rows >= 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_embeddings([pairs], [BATCH_TOY], tmp_path / "cut", batch_size=3)
    monkeypatch.setattr(StoreWriter, "append", append)
    report = extract_embeddings([pairs], [BATCH_TOY], tmp_path / "cut", batch_size=3)
    assert set(report.failures) == set(bad)
    assert 0 < report.encoded["batch-toy", "audio"] <= 17 - 9
    assert table(tmp_path / "cut", good, "batch-toy") == expected


def test_clips_are_tried_alone_once_at_most(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=30), "train")
    spoil(pairs, *range(5, 15))
    failing_on_the_bad(TOY.encoder, monkeypatch)
    sizes, encode = [], TOY.encoder.encode_audio
    monkeypatch.setattr(
        TOY.encoder,
        "encode_audio",
        lambda self, clips: sizes.append(len(clips)) or encode(self, clips),
    )
    report = extract_embeddings([pairs], [TOY], tmp_path / "store", batch_size=16)
    assert len(report.failures) == 10
    assert sizes.count(1) <= 30 + 1  # and one that is beyond doubt


def test_a_batch_that_fails_only_together_is_the_encoders_fault(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=6), "train")
    good = TOY.encoder.encode_audio

    def too_large(self, clips):
        if len(clips) > 2:
            raise MemoryError
        return good(self, clips)

    monkeypatch.setattr(TOY.encoder, "encode_audio", too_large)
    with pytest.raises(EncoderError, match="'toy', encode_audio: .*--batch-size"):
        extract_embeddings([pairs], [TOY], tmp_path / "store", batch_size=3)
    assert not extract_embeddings([pairs], [TOY], tmp_path / "store", batch_size=2).failures


def test_a_resampler_that_fails_costs_one_clip(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=4), "train")
    mono, (bad,) = Clip.mono, spoil(pairs, 1)

    def exhausted(self, rate):
        if abs(self.samples[-1, 0] - BAD) < 1e-3:
            raise MemoryError
        return mono(self, rate)

    monkeypatch.setattr(Clip, "mono", exhausted)
    report = extract_embeddings([pairs], [TOY], tmp_path / "store")
    assert report.failures == {bad: f"{bad}: cannot be resampled (MemoryError)."}
    assert report.encoded["toy", "audio"] == 3


def test_long_clips_are_not_kept_ahead_and_wait_in_smaller_batches(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=20), "train")
    extract_embeddings([pairs], [TOY], tmp_path / "store")
    sizes: list[int] = []
    encode_batch = batches.encode_batch

    def counted(encoder, modality, items):
        sizes.extend([len(items)] if modality == "audio" else [])
        return encode_batch(encoder, modality, items)

    monkeypatch.setattr(batches, "encode_batch", counted)
    monkeypatch.setattr(extract, "MAX_AHEAD_BYTES", 0)
    monkeypatch.setattr(batches, "MAX_WAITING_BYTES", 3 * 1600 * 4)  # of three clips
    extract_embeddings([pairs], [TOY], tmp_path / "careful")
    assert sizes == [3, 3, 3, 3, 3, 3, 2]
    assert table(tmp_path / "careful", pairs) == table(tmp_path / "store", pairs)


def test_clips_of_many_samples_are_decoded_one_at_a_time(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=20), "train")
    soundfile.write(pairs.audio[3], np.zeros((9000, 2)), 8000)
    extract_embeddings([pairs], [TOY], tmp_path / "store")
    decode, by_threads = read_clip, []

    def noted(path: Path, **limits: int) -> Clip:
        clip = decode(path, **limits)
        if threading.current_thread() is not threading.main_thread():
            by_threads.append(clip.samples.size)
        return clip

    limit = sorted(decode(path).samples.size for path in pairs.audio)[10]
    monkeypatch.setattr(extract, "MAX_AHEAD_SAMPLES", limit)
    monkeypatch.setattr(extract, "read_clip", noted)
    report = extract_embeddings([pairs], [TOY], tmp_path / "careful", n_jobs=2)
    assert not report.failures
    assert 0 < max(by_threads) <= limit
    assert table(tmp_path / "careful", pairs) == table(tmp_path / "store", pairs)


def test_silence_is_encoded(make_data: WriteData, tmp_path: Path) -> None:
    pairs = read_pairs(make_data(train=3), "train")
    soundfile.write(pairs.audio[0], np.zeros(8000), 8000)
    assert not extract_embeddings([pairs], [TOY], tmp_path / "store").failures
    assert np.isfinite(FeatureCache(tmp_path / "store").load(pairs).audio("toy")).all()


def test_an_encoder_that_returns_nan_stores_nothing_of_that_batch(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=6), "train")
    good = TOY.encoder.encode_audio
    n_batches = 0

    def breaks_later(self, clips):
        nonlocal n_batches
        n_batches += 1
        outputs = good(self, clips)
        return outputs if n_batches == 1 else {**outputs, "level": outputs["level"] * np.nan}

    monkeypatch.setattr(TOY.encoder, "encode_audio", breaks_later)
    with pytest.raises(
        EncoderError, match="'toy', audio output 'level', item 0 of a batch of 2: .* NaN"
    ):
        extract_embeddings([pairs], [TOY], tmp_path / "store", batch_size=4)
    monkeypatch.undo()
    report = extract_embeddings([pairs], [TOY], tmp_path / "store")
    assert report.encoded["toy", "audio"] == 2


EXTRACT = """
import os, signal, sys
from xacle_stack.cache import StoreWriter
from xacle_stack.encoders import EncoderChoice
from xacle_stack.extract import extract_embeddings
from xacle_stack.pairs import read_pairs

data, store, limit, *names = sys.argv[1:]
StoreWriter.__init__.__kwdefaults__["segment_rows"] = 4
pairs = [read_pairs(data, "train")]
encoders = [EncoderChoice(name) for name in names]
for choice in encoders:
    choice.encoder
calls = 0
PARTS = [os.path.join("xacle_stack", "extract"), os.path.join("xacle_stack", "cache")]
def count(frame, event, argument):
    global calls
    calls += event == "call" and any(part in frame.f_code.co_filename for part in PARTS)
    if calls == int(limit):
        os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(count)
extract_embeddings(pairs, encoders, store, batch_size=3)
sys.setprofile(None)
print(calls)
"""


def extract_command(data: Path, store: Path, limit: int) -> list[str]:
    return [sys.executable, "-c", EXTRACT, data, store, str(limit), TOY.name, BATCH_TOY.name]


def run_extract(data: Path, store: Path, limit: int) -> subprocess.CompletedProcess[str]:
    command = extract_command(data, store, limit)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_killed_and_started_again_gives_the_same_bytes(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(StoreWriter.__init__.__kwdefaults__, "segment_rows", 4)
    data = make_data(train=24)
    pairs = read_pairs(data, "train")
    n_calls = int(run_extract(data, tmp_path / "expected", 0).stdout)
    expected = [table(tmp_path / "expected", pairs, name) for name in ("toy", "batch-toy")]
    n_kept = []
    for number, limit in enumerate(np.linspace(0, n_calls, 5, dtype=int)[1:-1]):
        store = tmp_path / f"killed-{number}"
        assert run_extract(data, store, limit).returncode == -9
        n_kept.append(len(list(store.rglob("*.h5"))))
        extract_embeddings([pairs], [TOY, BATCH_TOY], store, batch_size=3)
        assert [table(store, pairs, name) for name in ("toy", "batch-toy")] == expected
        assert all(fault is None for _, fault in FeatureCache(store).verify())
    assert len(set(n_kept)) == 3  # killed at different places, with some rows kept


def test_a_vector_of_the_batch_toy_tells_its_batch(make_data: WriteData, tmp_path: Path) -> None:
    pairs = read_pairs(make_data(train=20), "train")
    for size in (3, 4):
        extract_embeddings([pairs], [BATCH_TOY], tmp_path / str(size), batch_size=size)
    three, four = (table(tmp_path / size, pairs, "batch-toy") for size in "34")
    assert three != four


def test_two_devices_share_the_work(make_data: WriteData, tmp_path: Path) -> None:
    pairs = read_pairs(make_data(train=20), "train")
    extract_embeddings([pairs], [TOY], tmp_path / "expected")
    report = extract_embeddings([pairs], [TOY], tmp_path / "store", device="cpu,cpu")
    assert table(tmp_path / "store", pairs) == table(tmp_path / "expected", pairs)
    assert report.encoded == {("toy", "audio"): 20, ("toy", "text"): len(set(pairs.captions))}
    assert not extract_embeddings([pairs], [TOY], tmp_path / "store", device="cpu,cpu").encoded


def test_two_runs_at_once(make_data: WriteData, tmp_path: Path) -> None:
    data = make_data(train=24)
    pairs = read_pairs(data, "train")
    extract_embeddings([pairs], [TOY], tmp_path / "expected")
    command = extract_command(data, tmp_path / "store", 0)
    runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert table(tmp_path / "store", pairs) == table(tmp_path / "expected", pairs)
    assert all(fault is None for _, fault in FeatureCache(tmp_path / "store").verify())


def test_views_are_encoded_by_one_model_beside_the_plain_clips(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=6), "train")
    plain = EncoderChoice("mini-mel")
    extract_embeddings([pairs], [plain], tmp_path / "store")
    before = FeatureCache(tmp_path / "store").load(pairs).audio("mini-mel")
    n_loaded, load = [], plain.encoder.load
    monkeypatch.setattr(plain.encoder, "load", lambda *args: n_loaded.append(1) or load(*args))
    choices = [replace(plain, view=view) for view in (0, 1, 2)]
    report = extract_embeddings([pairs], choices, tmp_path / "store")
    assert report.encoded == {(f"mini-mel.view-{view}", "audio"): 6 for view in (1, 2)}
    assert n_loaded == [1]
    cached = FeatureCache(tmp_path / "store").load(pairs)
    np.testing.assert_array_equal(cached.audio("mini-mel"), before)
    views = [cached.audio(view_name("mini-mel", view)) for view in (0, 1, 2)]
    clips = [read_clip(path).mono(16_000) for path in pairs.audio]
    for number, found in enumerate(views):
        expected = load().with_view(number).encode_audio(clips)["embedding"]
        np.testing.assert_array_equal(found, expected)
    assert len({found.tobytes() for found in views}) == 3


def test_a_changed_checkpoint_is_another_store(make_data: WriteData, tmp_path: Path) -> None:
    pairs = read_pairs(make_data(train=3), "train")
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        choice = type(TOY)(TOY.name, str(tmp_path / name))
        assert (
            extract_embeddings([pairs], [choice], tmp_path / "store").encoded["toy", "audio"] == 3
        )
        folder = tmp_path / "store" / store_id(choice.fingerprint()).folder
        assert folder.is_dir()
    assert len(FeatureCache(tmp_path / "store").stores("toy")) == 2


def test_progress_shows_items_and_time(make_data: WriteData, tmp_path: Path, capfd) -> None:
    pairs = read_pairs(make_data(train=5), "train")
    extract_embeddings([pairs], [TOY], tmp_path / "store", progress=True)
    shown = capfd.readouterr().err
    assert "all encoders: 100%" in shown
    assert "clips/s" in shown
    extract_embeddings([pairs], [TOY], tmp_path / "store", progress=True)
    assert capfd.readouterr().err == ""


def test_decoding_stays_close_ahead_of_the_encoder(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=40), "train")
    n_decoded, n_ahead = 0, []
    decode, encode = read_clip, TOY.encoder.encode_audio

    def counting_decode(path: Path, **limits: int) -> Clip:
        nonlocal n_decoded
        n_decoded += 1
        return decode(path, **limits)

    def counting_encode(self, clips):
        n_ahead.append(n_decoded - 4 * len(n_ahead))
        return encode(self, clips)

    monkeypatch.setattr("xacle_stack.extract.DECODE_WINDOW", 4)
    monkeypatch.setattr("xacle_stack.extract.read_clip", counting_decode)
    monkeypatch.setattr(TOY.encoder, "encode_audio", counting_encode)
    extract_embeddings([pairs], [TOY], tmp_path / "store", batch_size=4, n_jobs=2)
    assert len(n_ahead) == 10
    assert max(n_ahead) <= 3 * 4  # the batch that is encoded, and two windows


BROKEN = {
    "    def load(cls, checkpoint=None, device='cpu'):\n        raise RuntimeError('no weights')": (
        r"load: RuntimeError: no weights \(.*mine.py, line \d+\)"
    ),
    "    def encode_audio(self, clips):\n        return undefined_name": (
        r"encode_audio: NameError: .*\(.*mine.py, line \d+\)"
    ),
    "    def encode_audio(self, clips):\n        return clips": "returned list for audio",
    "    def encode_audio(self, clips):\n        return {'embedding': ['a'], 'level': [1]}": (
        "'embedding': not an array of numbers"
    ),
}


@pytest.mark.parametrize("body", BROKEN, ids=lambda body: body.strip()[-30:])
def test_what_an_encoder_does_wrong_is_told_with_its_place(
    make_data: WriteData, tmp_path: Path, body: str
) -> None:
    source = Path(TOY.name.rpartition(":")[0]).read_text()
    decorator = "    @classmethod\n" if "def load" in body else ""
    path = tmp_path / "mine.py"
    path.write_text(f"{source}\n\nclass Mine(ToySpace):\n{decorator}{body}\n")
    pairs = read_pairs(make_data(train=3), "train")
    with pytest.raises(EncoderError, match=BROKEN[body]):
        extract_embeddings([pairs], [EncoderChoice(f"{path}:Mine")], tmp_path / "store")


def test_an_encoder_that_fails_to_load_leaves_no_store(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=3), "train")
    monkeypatch.setattr(TOY.encoder, "load", None)
    with pytest.raises(EncoderError, match="'NoneType'"):
        extract_embeddings([pairs], [TOY], tmp_path / "store")
    assert FeatureCache(tmp_path / "store").stores() == []


def n_rows(store: Path) -> int:
    summaries = FeatureCache(store).summaries()
    return sum(summary.n_rows for summary in summaries if summary.modality == "audio")


def test_an_interrupt_keeps_what_every_device_has_encoded(
    make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=40), "train")
    choice = toy_that(tmp_path, "os.kill(os.getppid(), signal.SIGINT)")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            extract_embeddings(
                [pairs], [choice], tmp_path / "store", device="cpu,cpu", batch_size=2
            )
    finally:
        signal.signal(signal.SIGINT, before)
    assert n_rows(tmp_path / "store") >= 2 * 3
    assert list((tmp_path / "store" / "keys").iterdir())
    extract_embeddings([pairs], [choice], tmp_path / "store")
    assert n_rows(tmp_path / "store") == 40


def test_a_process_that_dies_costs_only_its_own_rows(make_data: WriteData, tmp_path: Path) -> None:
    pairs = read_pairs(make_data(train=40), "train")
    choice = toy_that(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(EncoderError, match="device 'cpu' died: .* again"):
        extract_embeddings([pairs], [choice], tmp_path / "store", device="cpu,cpu", batch_size=2)
    assert 16 <= n_rows(tmp_path / "store") < 40  # the other's three of seven shards
    extract_embeddings([pairs], [choice], tmp_path / "store")
    assert n_rows(tmp_path / "store") == 40
