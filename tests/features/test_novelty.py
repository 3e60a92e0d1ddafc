import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from xacle_stack import load_model, save_model
from xacle_stack.encoders import EncoderChoice, LoadedEncoders
from xacle_stack.errors import ModelFileError
from xacle_stack.features import Novelty, PairEmbeddings
from xacle_stack.features.novelty import warn_of_novelty
from xacle_stack.pairs import Pairs, read_pairs
from xacle_stack.synth.demo import write_demo

SPACES = ["one", "two"]


def embeddings(seed: int, n_pairs: int = 600, *, towards: float = 1.0) -> PairEmbeddings:
    """Return vectors around a few directions, or around their opposites; captions are repeated."""
    rng = np.random.default_rng(seed)
    centres = towards * np.random.default_rng(99).normal(size=(2, 2, 5, 8))
    spaces, caption = {}, rng.integers(300, size=n_pairs)
    for space, (of_clips, of_captions) in zip(SPACES, centres, strict=True):
        audio = of_clips[rng.integers(5, size=n_pairs)] + 0.4 * rng.normal(size=(n_pairs, 8))
        captions = of_captions[rng.integers(5, size=300)] + 0.4 * rng.normal(size=(300, 8))
        spaces[space] = (audio, captions[caption])
    return PairEmbeddings(spaces)


@pytest.fixture(scope="module")
def fitted() -> Novelty:
    return Novelty(SPACES).fit(embeddings(0))


def test_about_one_pair_in_a_hundred_like_those_in_training_is_above_one(fitted: Novelty) -> None:
    share = np.mean([np.mean(fitted.measure(embeddings(seed)) > 1) for seed in range(1, 9)])
    assert 0.001 < share < 0.04
    # What the scorer was fitted on is not new, whether it was kept to compare with or not.
    assert np.mean(fitted.measure(embeddings(0)) > 1) < 0.02


def test_clips_and_captions_are_judged_apart(fitted: Novelty) -> None:
    near, far = embeddings(1), embeddings(1, towards=-1.0)
    assert np.mean(fitted.measure(far) > 1) > 0.95
    mixed = PairEmbeddings({space: (near.audio(space), far.text(space)) for space in SPACES})
    clips, captions = fitted.measure_sides(mixed).T
    assert np.mean(clips > 1) < 0.05 < 0.9 < np.mean(captions > 1)
    np.testing.assert_array_equal(fitted.measure(mixed), np.maximum(clips, captions))


def test_encoders_of_clips_and_of_captions_may_share_no_space(fitted: Novelty) -> None:
    def apart(source: PairEmbeddings) -> PairEmbeddings:
        clips = {f"clips-{s}:embedding": source.audio(s) for s in SPACES}
        captions = {f"captions-{s}:embedding": source.text(s) for s in SPACES}
        return PairEmbeddings({}, clips, text_auxiliary=captions)

    audio, text = ([f"{side}-{s}:embedding" for s in SPACES] for side in ("clips", "captions"))
    found = Novelty([], audio, text).fit(apart(embeddings(0)))
    found.check_state()
    np.testing.assert_array_equal(
        found.measure(apart(embeddings(1))), fitted.measure(embeddings(1))
    )


def test_few_captions_leave_room_for_the_next() -> None:
    many, few = embeddings(0), embeddings(0, 8)
    assert Novelty(SPACES).fit(few).edge_ > 1.2
    assert Novelty(SPACES).fit(many).edge_ < 1.05


def test_lengths_of_vectors_do_not_count(fitted: Novelty) -> None:
    near = embeddings(1, 20)
    longer = PairEmbeddings({s: (4 * near.audio(s), near.text(s) / 2) for s in SPACES})
    np.testing.assert_allclose(fitted.measure(longer), fitted.measure(near), rtol=1e-5)


def test_a_pairs_novelty_depends_on_that_pair_only(fitted: Novelty) -> None:
    many = embeddings(1, 2500)  # more than are read at once
    together = fitted.measure(many)
    np.testing.assert_array_equal(fitted.measure(many[::-1]), together[::-1])
    for row in (0, 2048, 2499):
        np.testing.assert_array_equal(fitted.measure(many[[row]]), together[[row]])


def test_of_many_training_pairs_some_are_read(fitted: Novelty) -> None:
    class Counting(PairEmbeddings):
        n_read = 0

        def audio(self, encoder: str, output: str = "embedding"):
            Counting.n_read = max(Counting.n_read, len(self))
            return super().audio(encoder, output)

    many = embeddings(2, 5000)
    source = Counting({space: (many.audio(space), many.text(space)) for space in SPACES})
    large = Novelty(SPACES, n_landmarks=100).fit(source)
    assert Counting.n_read == 2048
    assert {len(kept) for kept in large.landmarks_.values()} == {100}
    assert np.mean(large.measure(embeddings(3)) > 1) < 0.04


def test_a_single_caption_in_training_makes_every_other_new() -> None:
    one = embeddings(0)
    caption = {space: np.repeat(one.text(space)[:1], 600, axis=0) for space in SPACES}
    fitted = Novelty(SPACES).fit(
        PairEmbeddings({space: (one.audio(space), caption[space]) for space in SPACES})
    )
    clips, captions = fitted.measure_sides(embeddings(1)).T
    assert np.mean(clips > 1) < 0.05
    assert (captions > 1).all()


def test_it_is_saved_and_checked(fitted: Novelty, tmp_path) -> None:
    again = load_model(save_model(tmp_path / "mine", fitted))
    np.testing.assert_array_equal(again.measure(embeddings(1)), fitted.measure(embeddings(1)))
    for name, value in {
        "edge_": 0.0,
        "edges_": {},
        "landmarks_": {**fitted.landmarks_, "one/text": np.zeros((0, 8))},
    }.items():
        broken = Novelty(SPACES).fit(embeddings(0))
        setattr(broken, name, value)
        with pytest.raises(ModelFileError, match=name):
            broken.check_state()


@pytest.mark.parametrize(
    ("n_pairs", "n_beyond", "is_told"),
    [(1, 1, True), (9, 1, True), (10, 1, False), (40, 5, True), (40, 4, False), (40, 0, False)],
)
def test_a_run_is_warned_of_many(caplog, n_pairs: int, n_beyond: int, is_told: bool) -> None:
    sides = np.full((n_pairs, 2), 0.5)
    sides[:n_beyond] = [0.9, 1.5]
    sides[0, 1] += 0.25 * (n_beyond > 0)
    with caplog.at_level(logging.WARNING):
        warn_of_novelty(sides, [f"p{row}" for row in range(n_pairs)])
    assert bool(caplog.text) == is_told
    if is_told:
        told = f"{n_beyond} of {n_pairs} pairs"
        assert told in caplog.text
        assert "the caption of 'p0' (1.75)" in caplog.text
        assert "label_free" in caplog.text


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Novelty, LoadedEncoders, Pairs]:
    """Return what is fitted on the demo data set, with the encoders that are its spaces."""
    data = write_demo(tmp_path_factory.mktemp("demo") / "demo", n_jobs=-1)
    train, test = (read_pairs(data, split) for split in ("train", "test"))
    spaces = ["mini-mel", "mini-mfcc", "mini-mod"]
    encoders = LoadedEncoders([EncoderChoice(space) for space in spaces], device="cpu")
    return Novelty(spaces).fit(encoded(encoders, train.audio, train.captions)), encoders, test


def encoded(
    encoders: LoadedEncoders, audio: Sequence[object], captions: Sequence[str]
) -> PairEmbeddings:
    return PairEmbeddings.from_outputs(
        encoders.encode_clips(audio, sample_rate_hz=16_000), encoders.encode_captions(captions)
    )


@pytest.mark.slow
def test_captions_in_another_script_are_new_to_a_scorer_of_the_demo(demo) -> None:
    fitted, encoders, test = demo
    assert np.mean(fitted.measure(encoded(encoders, test.audio, test.captions)) > 1) < 0.1
    captions = ["狗在叫", "собака лает", "xqzv jjkwp qqz", "quarterly revenue grew again"]
    strange = fitted.measure_sides(encoded(encoders, test.audio[:4], captions))
    assert (strange[:, 1] > 1).all()
    assert (strange[:, 0] < 1.1).all()


@pytest.mark.slow
def test_noise_and_silence_are_measured(demo, rng) -> None:
    fitted, encoders, test = demo
    sounds = [0.1 * rng.normal(size=48_000), np.zeros(48_000)]
    clips = fitted.measure_sides(encoded(encoders, sounds, test.captions[:2]))[:, 0]
    assert np.isfinite(clips).all()  # the mini encoders hear them like sounds of the demo


@pytest.mark.slow
def test_real_recordings_are_farther_from_the_demo_than_its_own(demo, real_data: Path) -> None:
    fitted, encoders, test = demo
    real = read_pairs(real_data / "esc10", "validation").take(range(60))
    own = fitted.measure(encoded(encoders, test.audio, test.captions))
    assert np.mean(fitted.measure(encoded(encoders, real.audio, real.captions)) > 1) > np.mean(
        own > 1
    )
