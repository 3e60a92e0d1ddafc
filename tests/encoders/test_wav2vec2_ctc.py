import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import write_checkpoint

from xacle_stack.encoders.wav2vec2_ctc import Wav2Vec2Ctc, bag_of_words, greedy_text, split_words
from xacle_stack.errors import EncoderError
from xacle_stack.features import lexical_overlap

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hub"), "wav2vec2-ctc", full=False)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Wav2Vec2Ctc:
    return Wav2Vec2Ctc.load(str(folder))


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0.3, 0.1, size=n).astype(np.float32) for n in (16_000, 24_321, 16_000, 400)]


def test_outputs_are_those_of_the_library(folder: Path, encoder: Wav2Vec2Ctc, clips) -> None:
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    outputs = encoder.encode_audio(clips)
    n_letters = 0
    for row, clip in enumerate(clips):
        inputs = extractor(clip, sampling_rate=16_000, return_tensors="pt").input_values
        with torch.inference_mode():
            result = encoder.model(inputs, output_hidden_states=True)
        frames = result.hidden_states[-1][0].numpy()
        expected = [frames.mean(axis=0), frames.std(axis=0), frames.max(axis=0)]
        np.testing.assert_allclose(
            outputs["pooled"][row], np.concatenate(expected), rtol=1e-4, atol=1e-5
        )
        best = result.logits[0].argmax(dim=-1)
        text = re.sub("<[^>]*>", "", tokenizer.decode(best))
        words = split_words(text)
        confidence = result.logits[0].softmax(dim=-1).amax(dim=-1)
        expected = [
            confidence.mean(),
            confidence.var(correction=0),
            (best == tokenizer.pad_token_id).float().mean(),
            len(words),
            len("".join(words)),
        ]
        np.testing.assert_allclose(outputs["transcript"][row], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(outputs["words"][row], bag_of_words(words))
        n_letters += len(text)
    assert n_letters > 20  # the random model does write something


def test_greedy_decoding_is_the_libraries(folder: Path) -> None:
    from transformers import Wav2Vec2CTCTokenizer

    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    tokens = tokenizer.convert_ids_to_tokens(range(32))
    for seed in range(20):
        best = np.random.default_rng(seed).integers(32, size=60).repeat(2)
        best[::3] = 0
        # Asked to skip special tokens, the library merges letters that a blank keeps apart.
        text = re.sub("<[^>]*>", "", tokenizer.decode(best))
        assert split_words(greedy_text(best, tokens)) == split_words(text)
    assert greedy_text(best[:0], tokens) == ""


def test_captions_and_transcripts_meet_in_the_same_buckets(encoder: Wav2Vec2Ctc) -> None:
    captions = ["A man says: HELLO, hello!", "don’t", "", "ξένος ήχος 42"]
    bags = encoder.encode_text(captions)["words"]
    np.testing.assert_array_equal(bags[0], bag_of_words(["a", "man", "says", "hello", "hello"]))
    np.testing.assert_array_equal(bags[1], bag_of_words(["don't"]))
    assert bags.sum(axis=1).tolist() == [5, 1, 0, 2]
    heard = np.stack([bag_of_words(split_words("HELLO WORLD"))])
    np.testing.assert_allclose(lexical_overlap(heard, bags[:1]), [[1 / 4, 1 / 5]])


def test_buckets_never_change() -> None:
    buckets = [int(bag_of_words([word]).argmax()) for word in ("rain", "dog", "a")]
    assert buckets == [317, 57, 64]


def test_another_vocabulary_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    numbers = json.loads((folder / "vocab.json").read_text())
    without_blank = {("_" if token == "<pad>" else token): n for token, n in numbers.items()}
    for vocabulary in (without_blank, {**numbers, "Ä": 32}, {**numbers, "Z": 30}, [], {}):
        (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
        with pytest.raises(EncoderError, match=r"vocab\.json .* 32"):
            Wav2Vec2Ctc.load(str(tmp_path))
