import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from xacle_stack.encoders.mini import MINI_ENCODERS, MiniMel, MiniMod, frontends
from xacle_stack.encoders.mini.fit import N_SCENES, draw_wordings, fit_cca, fit_mini
from xacle_stack.encoders.mini.weights import MiniWeights
from xacle_stack.errors import EncoderError
from xacle_stack.synth import (
    EVENTS,
    Scene,
    Story,
    draw_scene,
    random_stream,
    render_scene,
    write_caption,
)

CAPTIONS = [
    "A dog barks while rain falls",
    "a clock ticks.",
    "",
    "?!",
    "of the",
    "ξένος ήχος",
    "zzz",
    "a",
    "thunder " * 500,
]


@pytest.fixture(params=MINI_ENCODERS, ids=lambda encoder: encoder.info.name, scope="module")
def encoder(request):
    return request.param.load()


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=n).astype(np.float32) for n in (1, 2, 511, 513, 16_001, 160_000)]
    silence = [np.zeros(n, dtype=np.float32) for n in (1, 300, 64_000)]
    extremes = [np.full(9000, 1.0, dtype=np.float32), 1e-7 * noise[4], 1e4 * noise[4]]
    return noise + silence + extremes


def embed(encoder, clips=(), captions=()):
    audio = encoder.encode_audio(clips)["embedding"]
    return audio, encoder.encode_text(captions)["embedding"]


def test_embeddings_are_unit_vectors_for_any_clip_and_caption(encoder, clips):
    for vectors, n in zip(
        embed(encoder, clips, CAPTIONS), (len(clips), len(CAPTIONS)), strict=True
    ):
        assert vectors.shape == (n, 64)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_alone_equals_together_to_the_bit(encoder, clips):
    audio, text = embed(encoder, clips, CAPTIONS)
    reversed_audio, reversed_text = embed(encoder, clips[::-1], CAPTIONS[::-1])
    np.testing.assert_array_equal(audio, reversed_audio[::-1])
    np.testing.assert_array_equal(text, reversed_text[::-1])
    for i, clip in enumerate(clips):
        np.testing.assert_array_equal(embed(encoder, [clip])[0][0], audio[i])
    for i, caption in enumerate(CAPTIONS):
        np.testing.assert_array_equal(embed(encoder, [], [caption])[1][0], text[i])


def test_a_clip_need_not_be_contiguous(encoder, clips):
    spread = np.zeros((len(clips[4]), 3), dtype=np.float32)
    spread[:, 1] = clips[4]
    np.testing.assert_array_equal(*(embed(encoder, [c])[0] for c in (clips[4], spread[:, 1])))


def test_nothing_depends_on_global_random_state(encoder, clips):
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    first = embed(encoder, clips[:5], CAPTIONS)
    np.random.seed(2)  # noqa: NPY002
    for one, other in zip(first, embed(encoder, clips[:5], CAPTIONS), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_items_give_no_rows(encoder):
    assert [vectors.shape for vectors in embed(encoder)] == [(0, 64), (0, 64)]


def test_level_does_not_matter(encoder, clips):
    loud, quiet = embed(encoder, [clips[4], 0.01 * clips[4]])[0]
    np.testing.assert_allclose(loud, quiet, atol=1e-3)


def test_case_and_punctuation_do_not_matter(encoder):
    shouted, calm = embed(encoder, [], ["A DOG barks!", "a dog barks"])[1]
    np.testing.assert_array_equal(shouted, calm)


def test_matching_sounds_and_captions_are_closer_than_others(encoder):
    kinds = list(EVENTS)
    sounds, captions = [], []
    for i, kind in enumerate(kinds):
        rng = random_stream(99, "demo", i)
        sounds.append(render_scene(rng, Scene((kind,), (0.0,), "while", 4.0, -30.0)))
        captions.append(write_caption(rng, Story((kind,), ("plain",), "while"), "demo"))
    audio, text = embed(encoder, sounds, captions)
    ranks = (audio @ text.T).argsort(axis=1)[:, ::-1].argsort(axis=1).diagonal()
    assert np.median(ranks) <= 3


def test_the_spaces_see_different_things():
    cosines = []
    for encoder in MINI_ENCODERS:
        sounds, captions = [], []
        for i, kind in enumerate(EVENTS):
            rng = random_stream(7, "demo", i)
            sounds.append(render_scene(rng, Scene((kind,), (0.0,), "while", 4.0, -30.0)))
            captions.append(write_caption(rng, Story((kind,), ("plain",), "while"), "demo"))
        audio, text = embed(encoder.load(), sounds, captions)
        cosines.append((audio @ text.T).ravel())
    correlations = spearmanr(np.stack(cosines, axis=1)).statistic[np.triu_indices(3, 1)]
    assert (correlations > 0).all()
    assert (correlations < 0.9).all()


def test_the_embedded_weights_are_small(encoder):
    path = encoder.find_checkpoint(None)
    assert path.name == f"{encoder.info.name}.npz"
    assert path.stat().st_size < 1_000_000


def test_saved_weights_give_the_same_vectors_and_another_fingerprint(encoder, clips, tmp_path):
    path = tmp_path / "copy.npz"
    encoder.weights.save(path)
    again = type(encoder).load(str(path))
    np.testing.assert_array_equal(*(embed(e, clips[:5])[0] for e in (encoder, again)))
    assert type(encoder).fingerprint(str(path)) == type(encoder).fingerprint()
    changed = MiniWeights(
        **{**vars(encoder.weights), "audio_scale": encoder.weights.audio_scale + 1}
    )
    changed.save(path)
    assert type(encoder).fingerprint(str(path)) != type(encoder).fingerprint()


def read_arrays(path):
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def replaced(**changes):
    arrays = {**read_arrays(MiniMel.find_checkpoint(None)), **changes}
    return {name: values for name, values in arrays.items() if values is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio_map": None}, r"missing arrays \['audio_map'\]"),
        ({"bias": np.zeros(3)}, r"surplus arrays \['bias'\]"),
        ({"caption_offset": np.zeros(3)}, r"'caption_offset'.*\(3,\).*\(64,\)"),
        ({"caption_offset": np.full(64, np.nan)}, "'caption_offset'.*finite"),
        ({"caption_offset": np.zeros(64, dtype=int)}, "'caption_offset'.*finite"),
        ({"audio_scale": np.zeros(256)}, "'audio_scale'.*positive"),
        ({"audio_scale": np.array([object()])}, "npz"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, changes, message):
    path = tmp_path / "wrong.npz"
    np.savez(path, **replaced(**changes))
    with pytest.raises(EncoderError, match=rf"wrong\.npz: .*{message}.*Leave the checkpoint out"):
        MiniMel.load(str(path))


@pytest.mark.parametrize("content", [b"", b"not an npz", b"PK\x03\x04 cut short"])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=r"foreign\.npz: .*npz"):
        MiniMel.load(str(path))


def test_another_encoders_weights_and_a_lone_array_are_refused(tmp_path):
    with pytest.raises(EncoderError, match="another encoder's weights"):
        MiniMel.load(str(MiniMod.find_checkpoint(None)))
    np.save(tmp_path / "lone.npy", np.zeros(3))
    with pytest.raises(EncoderError, match="not readable.*npz"):
        MiniMel.load(str(tmp_path / "lone.npy"))


def test_a_missing_checkpoint_is_named():
    with pytest.raises(EncoderError, match=r"'nowhere\.npz'"):
        MiniMel.load("nowhere.npz")


def test_the_embedded_weights_fit_the_present_captions_and_sounds(encoder):
    rows = np.zeros(encoder.reader.n_buckets)
    n_captions = 0
    for number in range(N_SCENES):
        for caption in draw_wordings(random_stream(0, "fit", number))[1]:
            rows += encoder.reader.counts(caption)
            n_captions += 1
    # Fitting centres the captions, so the average caption lies at the origin.
    weights = encoder.weights
    centre = rows / n_captions @ weights.caption_map + weights.caption_offset
    np.testing.assert_allclose(centre, 0, atol=2e-3 * np.abs(weights.caption_map).max())


def test_the_embedded_weights_standardise_the_front_end(encoder):
    features = []
    for number in range(60):
        rng = random_stream(0, "fit", number)
        features.append(
            encoder.front_end(render_scene(rng, draw_scene(rng, draw_wordings(rng)[0])))
        )
    weights = encoder.weights
    standardised = (np.stack(features) - weights.audio_centre) / weights.audio_scale
    assert np.abs(standardised.mean(axis=0)).max() < 0.7
    assert np.abs(standardised.std(axis=0) - 1).mean() < 0.15


def test_cca_recovers_known_correlations():
    rng = np.random.default_rng(0)
    known = np.array([0.9, 0.6, 0.3])
    u = rng.normal(size=(40_000, 3))
    v = known * u + np.sqrt(1 - known**2) * rng.normal(size=u.shape)
    x = np.hstack([u, rng.normal(size=(len(u), 2))]) @ rng.normal(size=(5, 5)) + 3.0
    y = np.hstack([v, rng.normal(size=(len(u), 1))]) @ rng.normal(size=(4, 4)) - 1.0
    cca = fit_cca(x, y, n_dims=3)
    np.testing.assert_allclose(cca.correlations, known, atol=0.02)
    x_variates, y_variates = (x - cca.x_mean) @ cca.x_map, (y - cca.y_mean) @ cca.y_map
    joint = np.corrcoef(x_variates.T, y_variates.T)
    expected = np.block([[np.eye(3), np.diag(cca.correlations)]] * 2)
    expected[3:] = np.hstack([np.diag(cca.correlations), np.eye(3)])
    np.testing.assert_allclose(joint, expected, atol=1e-6)
    np.testing.assert_allclose((x_variates**2).mean(axis=0), 1, atol=1e-6)


def test_cca_shrinks_with_its_penalty_and_refuses_impossible_requests():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 10)), rng.normal(size=(30, 10))
    correlations = [fit_cca(x, y, 1, ridge, ridge).correlations[0] for ridge in (0.0, 0.1, 1.0)]
    assert correlations == sorted(correlations, reverse=True)
    with pytest.raises(EncoderError, match="cannot give 11 canonical directions"):
        fit_cca(x, y, 11)
    with pytest.raises(EncoderError, match=r"shapes \(30, 10\) and \(29, 10\)"):
        fit_cca(x, y[1:], 1)


def test_fitting_is_deterministic_whatever_the_number_of_workers():
    with threadpool_limits(1):  # as in the workers: front ends are in float32, and round
        one, two = fit_mini(n_scenes=40, seed=5), fit_mini(n_scenes=40, seed=5, n_jobs=2)
    for name, weights in one.items():
        for array, values in vars(weights).items():
            np.testing.assert_allclose(values, getattr(two[name], array), atol=1e-8)


def test_an_archive_that_unpacks_to_more_than_weights_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("audio_map.npy", bytes(64 << 20))
    assert path.stat().st_size < 1 << 17
    with pytest.raises(EncoderError, match=r"bomb\.npz: .* 67108864 bytes"):
        MiniMel.load(str(path))


def test_frames_are_the_course_of_the_spectrum() -> None:
    """A tone in the second half only is in the later frames, in its band, and each 80 ms a mean."""
    time = np.arange(16_000) / 16_000
    tone = np.where(time > 0.5, np.sin(2 * np.pi * 1000 * time), 0).astype(np.float32)
    encoder = MiniMel.load().with_outputs(["frames"])
    (frames,) = encoder.encode_audio([tone])["frames"]
    level = frontends._log_mel(tone, 64, hop=160, view=0) / 10
    assert frames.shape == (13, 64)  # 97 frames of 10 ms
    np.testing.assert_allclose(frames[1], level[8:16].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(frames[-1], level[96:].mean(axis=0), rtol=1e-5)
    assert frames[8:].max() > 0 > -5 > frames[:5].max()
    assert "frames" not in MiniMel.load().encode_audio([tone])
    (view,) = encoder.with_view(1).encode_audio([tone])["frames"]
    assert view.shape == frames.shape
    assert (view != frames).any()


def test_tokens_are_the_vectors_of_the_words_in_their_order() -> None:
    encoder = MiniMel.load().with_outputs(["tokens"])
    found = encoder.encode_text(["a dog barks", "", "barks"])["tokens"]
    assert [len(words) for words in found] == [3, 1, 1]
    np.testing.assert_array_equal(found[0][2], found[2][0])
    words = MiniMel.load().encode_text(["a", "dog", "barks"])
    np.testing.assert_array_equal(found[0], words["embedding"])
    assert "tokens" not in words
