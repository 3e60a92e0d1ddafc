import logging
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from support import WriteData

from xacle_stack import (
    CosineMean,
    FeatureCache,
    GatedRegressor,
    Pairs,
    Scorer,
    Stacker,
    TransformerRegressor,
    cosine_similarity,
    pseudo_label,
    pseudo_labels,
    read_pairs,
    with_wrong_captions,
)
from xacle_stack.audio import SampleSource
from xacle_stack.errors import PairsError, StackingError
from xacle_stack.features import VectorBuilder
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.stacking.calibration import keep_in_range


def captioned(rng: np.random.Generator, folder: str = "wav") -> Pairs:
    """Return 50 clips with one to three captions each, of which many are of several clips."""
    rows = [
        (f"{clip:02d}.wav", int(text))
        for clip in range(50)
        for text in rng.choice(12, size=1 + clip % 3)
    ]
    rows = [rows[row] for row in rng.permutation(len(rows))]
    return Pairs(
        "train",
        [f"{clip}-{row:03d}" for row, (clip, _) in enumerate(rows)],
        [Path(folder) / clip for clip, _ in rows],
        [f"sound {text}" for _, text in rows],
        columns={"group": tuple(clip for clip, _ in rows)},
    )


def by_clip(pairs: Pairs) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for clip, caption in zip(pairs.audio, pairs.captions, strict=True):
        captions.setdefault(Path(str(clip)).name, []).append(caption)
    return captions


def test_every_clip_gets_captions_that_are_never_its_own_and_never_twice(
    rng: np.random.Generator,
) -> None:
    pairs = captioned(rng)
    own = by_clip(pairs)
    for n_wrong in (1, 3, 9):  # at most 3 of the 12 texts are a clip's own
        more = with_wrong_captions(pairs, n_wrong)
        assert more.captions[: len(pairs)] == pairs.captions
        assert more.ids[: len(pairs)] == pairs.ids
        wrong = by_clip(more.take(range(len(pairs), len(more))))
        assert wrong.keys() == own.keys()
        for clip, captions in wrong.items():
            assert len(captions) == len(set(captions)) == n_wrong
            assert not set(captions) & set(own[clip])


def test_pairs_of_wrong_captions_say_whose_they_are(rng: np.random.Generator) -> None:
    pairs = captioned(rng)
    pairs = Pairs(
        pairs.split,
        pairs.ids,
        pairs.audio,
        pairs.captions,
        scores=np.full(len(pairs), 5.0),
        columns=pairs.columns,
    )
    more = with_wrong_captions(pairs, 2)
    assert more.split == "train"
    assert more.scores is None
    assert len(set(more.ids)) == len(more) == len(pairs) + 2 * 50
    assert more.columns["group"] == tuple(Path(str(clip)).name for clip in more.audio)
    first_ids: dict[str, str] = {}
    for pair_id, clip in sorted(zip(pairs.ids, pairs.columns["group"], strict=True)):
        first_ids.setdefault(clip, pair_id)
    expected = [f"{first_ids[clip]}#wrong-{k}" for clip in by_clip(pairs) for k in (1, 2)]
    assert list(more.ids[len(pairs) :]) == expected


def test_what_a_clip_draws_follows_from_its_name_its_captions_and_the_seed(
    rng: np.random.Generator,
) -> None:
    pairs = captioned(rng)
    wrong = by_clip(with_wrong_captions(pairs))
    moved = Pairs(
        "other",
        pairs.ids,
        [Path("elsewhere") / clip.name for clip in pairs.audio if isinstance(clip, Path)],
        pairs.captions,
    )
    shuffled = with_wrong_captions(moved.take(rng.permutation(len(pairs)).tolist()))
    assert {clip: sorted(texts) for clip, texts in by_clip(shuffled).items()} == {
        clip: sorted(texts) for clip, texts in wrong.items()
    }
    ids = dict(zip(shuffled.ids, shuffled.captions, strict=True))
    more = with_wrong_captions(pairs)
    assert ids == dict(zip(more.ids, more.captions, strict=True))
    assert more.captions != with_wrong_captions(pairs, random_state=1).captions


def test_every_set_of_wrong_captions_has_the_same_chance() -> None:
    n_clips, texts = 6000, "abcde"
    captions = [texts[clip % 5] for clip in range(n_clips)]
    pairs = Pairs("train", list(map(str, range(n_clips))), list(map(str, range(n_clips))), captions)
    more = with_wrong_captions(pairs, 2)
    drawn = Counter(
        (caption, frozenset(more.captions[n_clips + 2 * clip : n_clips + 2 * clip + 2]))
        for clip, caption in enumerate(captions)
    )
    assert len(drawn) == 5 * len(list(combinations("bcde", 2)))
    # 200 of each are expected, with a standard deviation of 13.
    assert max(abs(count - 200) for count in drawn.values()) < 5 * 13


def test_a_sound_in_memory_is_one_clip_wherever_it_stands() -> None:
    one, other = (SampleSource(np.zeros(8), 8000) for _ in range(2))
    pairs = Pairs("train", ["1", "2", "3"], [one, other, one], ["rain", "a dog", "wind"])
    more = with_wrong_captions(pairs, 1)
    assert more.ids[3:] == ("1#wrong-1", "2#wrong-1")
    assert more.audio[3:] == (one, other)
    assert more.captions[3] == "a dog"
    assert more.captions[4] in ("rain", "wind")


def test_mistakes_in_what_wrong_captions_are_asked_for() -> None:
    pairs = Pairs("train", ["1", "2", "3"], ["a.wav", "b.wav", "a.wav"], ["rain", "a dog", "a dog"])
    with pytest.raises(
        PairsError, match=r"1 of the 2 clips .*n_wrong=1.* 2 different .*2 .*'a\.wav'.*leaves 0"
    ):
        with_wrong_captions(pairs, 1)
    with pytest.raises(PairsError, match=r"2 of the 2 clips of 'train'"):
        with_wrong_captions(pairs)
    with pytest.raises(PairsError, match="with_audio=True"):
        with_wrong_captions(Pairs("train", ["1"], [], ["rain"]))
    twice = with_wrong_captions(pairs.take([0, 1]), 1)
    with pytest.raises(PairsError, match=r"2 id\(s\).*'1#wrong-1'.*own captions only"):
        with_wrong_captions(Pairs("x", [*twice.ids, "3"], [*twice.audio, "c"], [*"abcde"]), 1)
    for setting in ({"n_wrong": 0}, {"random_state": -1}):
        with pytest.raises(StackingError, match=next(iter(setting))):
            with_wrong_captions(pairs, **setting)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    settings = {"name": "mel", "spaces": ["mini-mel"], "features": {"n_components": 2}}
    return recipe_from({**settings, "stacker": {"preset": "paper"}}, "a test")


@pytest.fixture
def train(make_data: WriteData) -> Pairs:
    return read_pairs(make_data(train=40), "train")


@pytest.fixture
def teacher(recipe: Recipe, train: Pairs, tmp_path: Path) -> Scorer:
    return Scorer.label_free(recipe, store=tmp_path / "store").fit(train)


@pytest.fixture
def n_scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of pairs whenever some are scored; 16 in a file."""
    found: list[int] = []
    score = Scorer.score

    def noted(self: Scorer, pairs: Pairs, **settings: object) -> object:
        found.append(len(pairs))
        return score(self, pairs, **settings)  # type: ignore[call-overload]

    monkeypatch.setattr(Scorer, "score", noted)
    monkeypatch.setattr(pseudo_labels, "_FILE_ROWS", 16)
    return found


def files(store: Path) -> list[Path]:
    return sorted((store / "pseudo-labels").iterdir())


def test_labels_are_what_the_teacher_says(recipe: Recipe, train: Pairs, tmp_path: Path) -> None:
    store = tmp_path / "store"
    teacher = Scorer(recipe, store=store).fit(train)
    pairs = with_wrong_captions(train)
    labels = pseudo_label(pairs, teacher)
    assert labels.shape == (len(pairs),)
    np.testing.assert_array_equal(labels, teacher.score(pairs))
    path = teacher.save(tmp_path / "teacher.skops")
    np.testing.assert_array_equal(pseudo_label(pairs, path, store), labels)
    assert len(files(store)) == 1
    # Another process finds the same file, and another store has none.
    code = f"""
from xacle_stack import Scorer, pseudo_label, read_pairs, with_wrong_captions
Scorer.score = None
pairs = with_wrong_captions(read_pairs({str(train.audio[0].parents[2])!r}, "train"))
print(pseudo_label(pairs, {str(path)!r}, {str(store)!r}).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(labels.tolist())
    np.testing.assert_array_equal(pseudo_label(pairs, teacher, tmp_path / "other"), labels)
    assert [path.name for path in files(tmp_path / "other")] == [p.name for p in files(store)]
    assert teacher.store == store


def test_a_label_free_teacher_is_the_mean_of_standardised_cosines(
    train: Pairs, tmp_path: Path
) -> None:
    spaces = ["mini-mel", "mini-mfcc"]
    recipe = recipe_from({"name": "two", "spaces": spaces}, "a test")
    teacher = Scorer.label_free(recipe, store=tmp_path / "store").fit(train)
    pairs = with_wrong_captions(train)
    labels = pseudo_label(pairs, teacher)
    scale = teacher.regressor_
    assert isinstance(scale, CosineMean)
    cached = FeatureCache(tmp_path / "store").load(pairs)
    cosines = [cosine_similarity(cached.audio(space), cached.text(space)) for space in spaces]
    standardised = [
        (column - mean) / sd
        for column, mean, sd in zip(
            cosines, scale.mismatched_means_, scale.mismatched_sds_, strict=True
        )
    ]
    expected = keep_in_range(10 * np.mean(standardised, axis=0) / scale.top_, 0, 10)
    np.testing.assert_allclose(labels, expected, rtol=1e-5, atol=1e-6)


def test_labels_are_kept_for_the_same_pairs_and_the_same_teacher(
    teacher: Scorer, train: Pairs, tmp_path: Path, n_scored: list[int], recipe: Recipe
) -> None:
    labels = pseudo_label(train, teacher)
    assert n_scored == [16, 16, 8]
    renamed = Pairs("other", [f"x{i}" for i in range(40)], train.audio, train.captions)
    np.testing.assert_array_equal(pseudo_label(renamed, teacher), labels)
    assert len(n_scored) == 3
    first = pseudo_label(train.take([*range(32), 39]), teacher)
    np.testing.assert_array_equal(first, labels[[*range(32), 39]])
    assert n_scored[3:] == [1]
    np.testing.assert_array_equal(
        pseudo_label(train.take(range(39, -1, -1)), teacher), labels[::-1]
    )
    assert n_scored[4:] == [16, 16, 8]
    other = Scorer.label_free(recipe, store=tmp_path / "store").fit(train.take(range(30)))
    assert (pseudo_label(train, other) != labels).any()
    assert n_scored[7:] == [16, 16, 8]
    assert len(files(tmp_path / "store")) == 3 + 1 + 3 + 3


def test_a_run_that_was_stopped_keeps_the_files_that_are_complete(
    teacher: Scorer, train: Pairs, n_scored: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Scorer.score
    with monkeypatch.context() as stopped:

        def stop(self: Scorer, pairs: Pairs, **settings: object) -> object:
            if n_scored:
                raise KeyboardInterrupt
            return score(self, pairs, **settings)  # type: ignore[call-overload]

        stopped.setattr(Scorer, "score", stop)
        with pytest.raises(KeyboardInterrupt):
            pseudo_label(train, teacher)
    labels = pseudo_label(train, teacher)
    assert n_scored == [16, 16, 8]
    np.testing.assert_array_equal(labels, teacher.score(train))


def test_a_damaged_file_is_made_again(
    teacher: Scorer,
    train: Pairs,
    tmp_path: Path,
    n_scored: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels = pseudo_label(train, teacher)
    one, two, three = files(tmp_path / "store")
    sound = {path: path.read_bytes() for path in (one, two, three)}
    flipped = bytearray(sound[one])
    flipped[40] ^= 1
    for damage in (b"", bytes(flipped), sound[one][:-8], sound[one] * 2, sound[two], sound[three]):
        del n_scored[:]
        one.write_bytes(damage)
        with caplog.at_level(logging.WARNING):
            np.testing.assert_array_equal(pseudo_label(train, teacher), labels)
        assert len(n_scored) == 1
        assert f"{one}: ignored and made again" in caplog.text
        assert {path: path.read_bytes() for path in files(tmp_path / "store")} == sound
        caplog.clear()


def test_labels_are_returned_where_they_cannot_be_kept(
    teacher: Scorer, train: Pairs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store" / "pseudo-labels").write_text("a file in place of the folder")
    labels = pseudo_label(train, teacher)
    np.testing.assert_array_equal(labels, teacher.score(train))
    assert "not kept" in caplog.text


def test_pairs_that_score_together_stay_together(
    recipe: Recipe, train: Pairs, tmp_path: Path, n_scored: list[int]
) -> None:
    pytest.importorskip("torch")
    network = TransformerRegressor("mini-mel", epochs=1, random_state=0)
    regressor = GatedRegressor(network, "mini-mel", statistics="batch")
    teacher = Scorer(
        recipe, regressor, builder=VectorBuilder(["mini-mel"]), store=tmp_path / "store"
    ).fit(train)
    labels = pseudo_label(train, teacher)
    assert n_scored == [40]
    np.testing.assert_array_equal(labels, teacher.score(train))


def test_mistakes_in_what_a_teacher_is_asked_for(
    teacher: Scorer, train: Pairs, tmp_path: Path, recipe: Recipe
) -> None:
    cached = FeatureCache(tmp_path / "store").load(train)
    with pytest.raises(PairsError, match=r"got a CachedPairs.*Scorer\.score"):
        pseudo_label(cached, teacher)  # type: ignore[arg-type]
    with pytest.raises(NotFittedError, match="call fit"):
        pseudo_label(train, Scorer.label_free(recipe))
    with pytest.raises(StackingError, match="got a Stacker"):
        pseudo_label(train, Stacker())  # type: ignore[arg-type]
    gone = Pairs("train", ["1"], [tmp_path / "gone.wav"], ["rain"])
    with pytest.raises(PairsError, match=r"gone\.wav"):
        pseudo_label(gone, teacher)
