import numpy as np
import pytest

from xacle_stack.encoders import get_encoder
from xacle_stack.encoders.mga_clap import sparsemax

torch = pytest.importorskip("torch")
if not get_encoder("mga-clap").info.is_installed:
    pytest.skip("the extra encoders is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def encoder(written):
    return written("mga-clap").load()


def test_sparsemax_is_the_nearest_point_of_the_simplex(rng: np.random.Generator) -> None:
    values = torch.from_numpy(rng.normal(size=(20, 50)))
    shares = sparsemax(values)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(20, dtype=values.dtype))
    assert (shares >= 0).all()
    # What was taken off is the same wherever something is left, and enough where nothing is.
    taken = values - shares
    threshold = taken.where(shares > 0, -torch.inf).amax(dim=1, keepdim=True)
    torch.testing.assert_close(taken.where(shares > 0, threshold), threshold.expand_as(taken))
    assert (values <= threshold)[shares == 0].all()
    assert (shares == 0).any()
    torch.testing.assert_close(sparsemax(torch.zeros(1, 4)), torch.full((1, 4), 0.25))


def test_vectors_are_mixtures_of_codes(encoder) -> None:
    vectors = encoder.encode_text(["rain falls", "a dog barks"])["embedding"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    codes = encoder.model.codebook.numpy()
    tokens = encoder._tokens(["rain falls"], 30)
    with torch.inference_mode():
        frames = encoder.model.text_model(**tokens).last_hidden_state
        words = encoder.model.word_proj(frames)[0, 1:-1].numpy()
    near = np.maximum((words @ codes.T).max(axis=0), 0) / np.sqrt(1024) / 1000
    low, high = near.max() - 1, near.max()
    for _ in range(60):  # the threshold above which the rest sums up to 1
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(near - middle, 0, None).sum() > 1 else (low, middle)
    mixture = np.clip(near - low, 0, None) @ codes
    np.testing.assert_allclose(vectors[0], mixture / np.linalg.norm(mixture), atol=1e-5)


def test_captions_lose_their_punctuation(encoder) -> None:
    loud, plain = encoder.encode_text(['Rain, (loud); "dogs" bark!', "rain loud dogs bark"])[
        "embedding"
    ]
    np.testing.assert_allclose(loud, plain, atol=1e-6)


def test_the_last_block_looks_at_each_place_only(encoder) -> None:
    block = encoder.model.audio_model.audio_encoder.layers[-1].blocks[-1]
    places = torch.randn(1, 64, 256, generator=torch.Generator().manual_seed(0))
    other = places.clone()
    other[0, 5] = 0
    with torch.inference_mode():
        one, two = (block(x, (8, 8))[0] for x in (places, other))
    changed = (one != two).any(dim=2)[0]
    assert changed.nonzero().flatten().tolist() == [5]
