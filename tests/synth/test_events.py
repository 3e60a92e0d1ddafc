import numpy as np
import pytest

from xacle_stack.errors import UnknownNameError
from xacle_stack.synth import EVENTS, SAMPLE_RATE_HZ, synthesise

ESC_10 = {
    "dog", "rain", "waves", "baby", "clock", "sneeze", "helicopter", "chainsaw", "rooster", "fire",
}  # fmt: skip
N = 3 * SAMPLE_RATE_HZ


def test_the_table_holds_the_promised_kinds():
    assert len(EVENTS) >= 24
    assert EVENTS.keys() >= ESC_10


@pytest.mark.parametrize("kind", EVENTS)
def test_every_kind_is_finite_audible_and_in_range(kind):
    for seed in range(5):
        sound = synthesise(kind, np.random.default_rng(seed), N)
        assert sound.shape == (N,)
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
        windows = sound[: N // 800 * 800].reshape(-1, 800)
        assert np.sqrt((windows**2).mean(axis=1)).max() == pytest.approx(0.1, rel=0.02)
        assert np.abs(sound).max() < 4


@pytest.mark.parametrize("kind", EVENTS)
def test_every_kind_depends_on_its_generator_alone(kind):
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    first = synthesise(kind, np.random.default_rng(7), N)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(first, synthesise(kind, np.random.default_rng(7), N))
    assert not np.array_equal(first, synthesise(kind, np.random.default_rng(8), N))


@pytest.mark.parametrize("kind", EVENTS)
def test_every_kind_fills_short_and_long_requests(kind):
    for n_samples in (1, 100, 8000, 10 * SAMPLE_RATE_HZ):
        sound = synthesise(kind, np.random.default_rng(0), n_samples)
        assert sound.shape == (n_samples,)
        assert np.isfinite(sound).all()


@pytest.mark.parametrize("kind", EVENTS)
def test_every_kind_can_be_worded(kind):
    for clause in EVENTS[kind].clauses:
        assert clause.subjects
        assert all(finite and participle for finite, participle in clause.verbs)


def test_an_unknown_kind_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'unicorn'.*dog.*rain"):
        synthesise("unicorn", np.random.default_rng(0), 100)
