import numpy as np
import pytest

from xacle_stack.synth import (
    EVENTS,
    Scene,
    Story,
    caption_half,
    draw_scene,
    draw_story,
    random_stream,
    render_scene,
    write_caption,
)


def draw_captions(half, n, seed=0):
    for i in range(n):
        rng = random_stream(seed, half, i)
        yield write_caption(rng, draw_story(rng), half)


def test_captions_are_of_the_half_asked_for():
    assert {caption_half(caption) for caption in draw_captions("fit", 500)} == {"fit"}
    assert {caption_half(caption) for caption in draw_captions("demo", 500)} == {"demo"}


def test_halves_are_disjoint_but_for_case_and_punctuation_too():
    def words(half):
        return {c.casefold().rstrip(".") for c in draw_captions(half, 1500)}

    assert not words("fit") & words("demo")


def test_about_half_of_all_wordings_belong_to_each_half():
    texts = [f"{a} {b}" for a in EVENTS for b in EVENTS]
    share = np.mean([caption_half(text) == "fit" for text in texts])
    assert share == pytest.approx(0.5, abs=0.06)


def test_captions_have_thousands_of_surface_forms():
    assert len(set(draw_captions("fit", 3000))) > 2500


@pytest.mark.parametrize("kind", EVENTS)
def test_each_kind_alone_has_many_wordings_in_both_halves(kind):
    rng = np.random.default_rng(0)
    for half in ("fit", "demo"):
        story = Story((kind,), ("plain",), "while")
        assert len({write_caption(rng, story, half) for _ in range(100)}) >= 10


@pytest.mark.parametrize("order", ["then", "while"])
@pytest.mark.parametrize("n_events", [1, 2, 3])
def test_captions_name_every_event(order, n_events):
    kinds = ("sneeze", "snoring", "laughter")[:n_events]
    stems = ("sneez", "snor", ("laugh", "giggl", "chuckl"))[:n_events]
    rng = np.random.default_rng(0)
    for _ in range(100):
        caption = write_caption(rng, Story(kinds, ("plain",) * n_events, order), "fit").casefold()
        for stem in stems:
            assert any(s in caption for s in ((stem,) if isinstance(stem, str) else stem)), caption
        assert "  " not in caption
        assert not {"{", "}"} & set(caption)


def test_scenes_are_of_the_promised_length_level_and_type():
    for i in range(40):
        rng = random_stream(3, "fit", i)
        scene = draw_scene(rng, draw_story(rng))
        samples = render_scene(rng, scene)
        assert samples.dtype == np.float32
        assert 3.5 * 16_000 <= len(samples) <= 5 * 16_000
        assert 0.29 < np.abs(samples).max() < 0.96


def test_a_scene_depends_on_its_stream_alone():
    scene = Scene(("dog", "rain"), (0.0, -3.0), "then", 4.0, -30.0)
    first = render_scene(random_stream(0, "fit", 5), scene)
    np.testing.assert_array_equal(first, render_scene(random_stream(0, "fit", 5), scene))
    for other in ((0, "demo", 5), (0, "fit", 6), (1, "fit", 5)):
        assert not np.array_equal(first, render_scene(random_stream(*other), scene))


def test_events_that_follow_one_another_are_ordered_in_time():
    gains, quiet = (0.0, -60.0), -80.0
    for i in range(5):
        first = render_scene(
            random_stream(0, "fit", i), Scene(("vacuum", "rain"), gains, "then", 4.0, quiet)
        )
        last = render_scene(
            random_stream(0, "fit", i), Scene(("rain", "vacuum"), gains[::-1], "then", 4.0, quiet)
        )
        third = len(first) // 3
        assert (first[:third] ** 2).sum() > 10 * (first[-third:] ** 2).sum()
        assert (last[-third:] ** 2).sum() > 10 * (last[:third] ** 2).sum()
