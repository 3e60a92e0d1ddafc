from dataclasses import replace
from pathlib import Path

import pytest
from support import TOY, WriteData

from xacle_stack.cache import CachedPairs, FeatureCache
from xacle_stack.data_facts import DataFacts, pair_digests
from xacle_stack.extract import extract_embeddings
from xacle_stack.pairs import Pairs, read_pairs


@pytest.fixture
def train(make_data: WriteData) -> Pairs:
    return read_pairs(make_data(train=8), "train")


def loaded(pairs: Pairs, tmp_path: Path) -> CachedPairs:
    extract_embeddings([pairs], [TOY], tmp_path / "store")
    return FeatureCache(tmp_path / "store").load(pairs)


def test_clips_and_captions_are_counted_once(train: Pairs, tmp_path: Path) -> None:
    twice = replace(
        train,
        audio=(train.audio[0], *train.audio[:-1]),
        captions=("a", "a", *train.captions[2:]),
    )
    facts = DataFacts.of(loaded(twice, tmp_path))
    assert (facts.split, facts.n_pairs, facts.n_clips) == ("train", 8, 7)
    assert facts.n_captions == len(set(twice.captions))
    assert facts.score_range == (train.scores.min(), train.scores.max())


def test_pairs_without_scores_or_clips_have_facts(train: Pairs, tmp_path: Path) -> None:
    bare = replace(train, scores=None, ratings=None, audio=())
    facts = DataFacts.of(loaded(bare, tmp_path))
    assert (facts.n_clips, facts.score_range) == (0, None)
    assert facts.digest != DataFacts.of(loaded(train, tmp_path)).digest


def test_the_digest_of_a_part_is_made_of_its_pairs(train: Pairs, tmp_path: Path) -> None:
    whole = loaded(train, tmp_path)
    digests = pair_digests(whole)
    assert len(set(digests)) == 8
    assert pair_digests(whole[[5, 2]]) == [digests[5], digests[2]]
    assert DataFacts.of(whole[[5, 2]]).digest != DataFacts.of(whole[[2, 5]]).digest
