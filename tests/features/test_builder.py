import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from support import random_embeddings
from threadpoolctl import threadpool_limits

from xacle_stack._rows import BLOCK_ROWS
from xacle_stack.errors import FeatureError, UnknownNameError
from xacle_stack.features import (
    FeatureBuilder,
    PairEmbeddings,
    agreement_features,
    cosine_similarity,
    lexical_overlap,
    pair_features,
    proximities,
)
from xacle_stack.pairs import Pairs


def test_families_are_phi_with_auxiliary_and_agreement() -> None:
    source = random_embeddings(0)
    builder = FeatureBuilder(["one", "two"], ["tags:logits"], n_components=3)
    table = builder.fit_transform(source)
    assert {name: table.width(*blocks) for name, blocks in table.families.items()} == {
        "one": 31 + 3,
        "two": 46 + 3,
        "agreement": 2 + 1 + 3 * 4,
    }
    assert table.values.dtype == np.float32
    assert table.pair_ids == source.pair_ids
    blocks, cosines, projections = {}, [], []
    for space in ("one", "two"):
        blocks[space] = pair_features(source.audio(space), source.text(space))
        logits = source.audio("tags", "logits")
        np.testing.assert_array_equal(table.family(space), np.hstack([blocks[space], logits]))
        cosines.append(cosine_similarity(source.audio(space), source.text(space)))
        axes = np.linalg.svd(blocks[space])[2][:3]
        axes *= np.sign(axes[np.arange(3), np.abs(axes).argmax(axis=1)])[:, np.newaxis]
        np.testing.assert_allclose(builder.projections_[space], axes.T, rtol=1e-3, atol=1e-4)
        projections.append(blocks[space] @ axes.T)
    np.testing.assert_allclose(
        table.family("agreement"),
        agreement_features(np.column_stack(cosines), projections),
        rtol=1e-4,
        atol=1e-5,
    )


def test_without_spaces_the_auxiliaries_are_one_family() -> None:
    source = random_embeddings(0)
    clips, captions = source.audio("tags", "logits"), source.text("one")
    source = PairEmbeddings(
        {}, {"tags:logits": clips}, text_auxiliary={"words:embedding": captions}
    )
    builder = FeatureBuilder([], ["tags:logits"], text_auxiliary=["words:embedding"])
    table = builder.fit_transform(source)
    assert table.families == {"auxiliary": ("tags/logits", "words/embedding")}
    np.testing.assert_array_equal(table.block("tags/logits"), clips)
    np.testing.assert_array_equal(table.block("words/embedding"), captions)
    alone = builder.transform(source[[3]])
    np.testing.assert_array_equal(alone.values[0], table.values[3])
    captions[5, 0] = np.inf
    with pytest.raises(FeatureError, match="'words:embedding': row 5 "):
        builder.fit(source)


def test_captions_outputs_are_shared_like_those_of_clips() -> None:
    source = random_embeddings(0)
    both = PairEmbeddings(
        {"one": (source.audio("one"), source.text("one"))},
        {"tags:logits": source.audio("tags", "logits")},
        text_auxiliary={"words:embedding": source.text("two")},
    )
    builder = FeatureBuilder(["one"], ["tags:logits"], text_auxiliary=["words:embedding"])
    table = builder.set_params(n_components=2).fit_transform(both)
    assert table.families["one"][-2:] == ("tags/logits", "words/embedding")
    assert "agreement" in table.families
    with pytest.raises(FeatureError, match="captions of the space 'one'"):
        PairEmbeddings({"one": (source.audio("one"),) * 2}, text_auxiliary={"one:embedding": []})


def test_what_is_learned_is_learned_in_fit_only() -> None:
    train, test = random_embeddings(0), random_embeddings(1)
    builder = FeatureBuilder(["one", "two"], n_components=3)
    train_table = builder.fit_transform(train)
    np.testing.assert_array_equal(builder.transform(train).values, train_table.values)
    first = builder.transform(test).values
    np.testing.assert_array_equal(
        FeatureBuilder(["one", "two"], n_components=3).fit(train).transform(test).values, first
    )
    other = FeatureBuilder(["one", "two"], n_components=3).fit(test).transform(test).values
    assert not np.allclose(other[:, -1], first[:, -1])


def test_alone_equals_together() -> None:
    source = random_embeddings(2)
    builder = FeatureBuilder(["one", "two"], ["tags:logits"], n_components=3).fit(
        random_embeddings(0)
    )
    together = builder.transform(source).values
    for row in (0, 17):
        alone = PairEmbeddings(
            {s: (source.audio(s)[[row]], source.text(s)[[row]]) for s in ("one", "two")},
            {"tags:logits": source.audio("tags", "logits")[[row]]},
        )
        np.testing.assert_array_equal(builder.transform(alone).values[0], together[row])


@pytest.mark.parametrize("n_components", [1, 3, 8])
@pytest.mark.parametrize("dtype", ["C float32", "F float32", "C float64", "F float64", "strided"])
def test_rows_have_the_same_bits_in_every_block(n_components: int, dtype: str, rng) -> None:
    n_pairs = BLOCK_ROWS + 300
    arrays = rng.normal(size=(4, n_pairs, 2 * 48)).astype(dtype[2:] if " " in dtype else "f4")
    a, b, c, d = (
        array[:, ::2] if dtype == "strided" else np.array(array[:, :48], order=dtype[0])
        for array in arrays
    )
    source = PairEmbeddings({"one": (a, b), "two": (c[:, :5], d[:, :5])}, {"tags:logits": c})
    builder = FeatureBuilder(["one", "two"], ["tags:logits"], n_components=n_components)
    table = builder.fit_transform(source)
    values = table.values
    np.testing.assert_array_equal(values, table.values)
    for size in (1, 2, 3, 5, 8, 31, 64, 333, n_pairs):
        for start in rng.integers(0, n_pairs, size=2).tolist():
            rows = slice(start, start + size)
            assert table.rows(rows).tobytes() == values[rows].tobytes()
            for blocks in [*table.families.values(), ("two/square", "agreement/cosines")]:
                expected = np.hstack([values[rows, table.blocks[block]] for block in blocks])
                np.testing.assert_array_equal(table.rows(rows, blocks), expected)
    with threadpool_limits(2):
        agreement = np.hstack([values[:, table.blocks[b]] for b in table.families["agreement"]])
        np.testing.assert_array_equal(table.family("agreement"), agreement)


def test_an_auxiliary_is_one_block_that_families_share() -> None:
    source = random_embeddings(0)
    table = FeatureBuilder(["one", "two"], ["tags:logits"], n_components=3).fit_transform(source)
    parts = ("audio", "text", "product", "difference", "square")
    sizes = {name: table.width(name) for name in table.blocks}
    assert sizes == {
        **{f"one/{name}": 6 for name in parts},
        "one/cosine": 1,
        **{f"two/{name}": 9 for name in parts},
        "two/cosine": 1,
        "tags/logits": 3,
        "agreement/cosines": 2,
        "agreement/cosine differences": 1,
        "agreement/projections": 6,
        "agreement/products": 3,
        "agreement/differences": 3,
    }
    assert table.shape == (40, sum(sizes.values()))
    for space in ("one", "two"):
        own = [*(f"{space}/{name}" for name in parts), f"{space}/cosine"]
        assert table.families[space] == (*own, "tags/logits")
    assert all(name.startswith("agreement/") for name in table.families["agreement"])
    audio = source.audio("one")
    unit = audio / np.linalg.norm(audio, axis=1, keepdims=True)
    np.testing.assert_allclose(table.block("one/audio"), unit, atol=1e-6)
    single = FeatureBuilder(["one"], n_components=2).fit_transform(source)
    assert list(single.blocks)[-2:] == ["agreement/cosines", "agreement/projections"]


def test_a_table_keeps_what_it_was_made_with() -> None:
    builder = FeatureBuilder(["one"], n_components=2).fit(random_embeddings(0))
    table = builder.transform(random_embeddings(1))
    before = table.values
    builder.fit(random_embeddings(2))
    np.testing.assert_array_equal(table.values, before)


def test_bad_rows_are_counted_in_the_whole_table() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2 * BLOCK_ROWS, 3))
    logits = rng.normal(size=(len(a), 2))
    words = rng.poisson(0.5, size=(2, len(a), 4)).astype(float)
    source = PairEmbeddings({"one": (a, b)}, {"tags:logits": logits, "asr:words": tuple(words)})
    builder = FeatureBuilder(["one"], ["tags:logits", "asr:words"], n_components=1).fit(source)
    row = BLOCK_ROWS + 77
    for array, value, message in (
        (a, 0, f"space 'one': audio .*1 of .* row {row}"),
        (b, np.nan, f"space 'one': text .*1 of .* row {row}"),
        (logits, np.inf, f"auxiliary 'tags:logits': row {row} and 0 "),
        (words[1], -1, f"auxiliary 'asr:words': text .* row {row}"),
    ):
        kept = array[row].copy()
        array[row] = value
        table = builder.transform(source)  # cheap: rows are made later
        table.rows(slice(row + 1, None))
        with pytest.raises(FeatureError, match=message):
            table.rows(slice(row - 3, row + 1))
        with pytest.raises(FeatureError, match=message):
            table.values
        with pytest.raises(FeatureError, match=message):
            builder.fit(source)
        array[row] = kept


def test_words_contribute_their_overlap() -> None:
    rng = np.random.default_rng(0)
    one = tuple(rng.normal(size=(2, 30, 4)))
    words = tuple(rng.poisson(0.5, size=(2, 30, 16)))
    logits = rng.normal(size=(30, 3))
    source = PairEmbeddings({"one": one}, {"speech:words": words, "tags:logits": logits})
    builder = FeatureBuilder(["one"], ["speech:words", "tags:logits"], n_components=2)
    family = builder.fit_transform(source).family("one")
    assert family.shape == (30, 21 + 2 + 3)
    np.testing.assert_array_equal(family[:, 21:23], lexical_overlap(*words))
    np.testing.assert_array_equal(family[:, 23:], logits.astype(np.float32))
    words[1][7, 0] = -1
    with pytest.raises(FeatureError, match=r"auxiliary 'speech:words': text words: .* row 7"):
        builder.fit(source)
    of_clips = PairEmbeddings({"one": one}, {"speech:words": words[0]})
    with pytest.raises(UnknownNameError, match="'speech:words'"):
        FeatureBuilder(["one"], ["speech:words"], n_components=2).fit(of_clips)


def test_bad_settings_are_told() -> None:
    source = random_embeddings(0)
    for settings, message in {
        "spaces='one'": r"spaces .*'one'.*spaces=\['mini-mel'\]",
        "spaces=[]": r"spaces .*\[\]",
        "spaces=None": r"spaces .*None",
        "spaces=[('one', 2)]": "spaces .*encoder names",
        "spaces=['agreement']": "'agreement'.*another name",
        "spaces=['one'], auxiliary='tags:logits'": "'encoder:output', got 'tags:logits'. For one",
        "spaces=['one'], auxiliary=None": "auxiliary .*None.*auxiliary=",
        "spaces=['one', 'one']": r"twice: \['one'\]",
        "spaces=['one'], auxiliary=['tags', 'tags:embedding']": r"twice: \['tags/embedding'\]",
        "spaces=['one'], auxiliary=['one:text']": r"pair features: \['one/text'\]",
        "spaces=['one'], agreement='no'": "agreement must be True or False, got 'no'",
        "spaces=['one'], n_components=0": "n_components must be .* 1 or more, got 0",
        "spaces=['one'], n_components=99": "n_components=99 needs as many .* 40 pairs with 31",
    }.items():
        with pytest.raises(FeatureError, match=message):
            eval(f"FeatureBuilder({settings})").fit(source)
    with pytest.raises(UnknownNameError, match="'three:embedding'; at hand: one:embedding"):
        FeatureBuilder(["three"]).fit(source)
    with pytest.raises(NotFittedError):
        FeatureBuilder(["one"]).transform(source)


def test_pairs_without_embeddings_are_told() -> None:
    with pytest.raises(FeatureError, match=r"cache\.load\(pairs\) .*got Pairs"):
        FeatureBuilder(["one"]).fit(Pairs("train", ("a.wav",), (), ("rain",)))


def test_another_size_than_in_fit_is_told() -> None:
    builder = FeatureBuilder(["one"], n_components=2).fit(random_embeddings(0))
    source = random_embeddings(0)
    wider = PairEmbeddings({"one": (source.audio("two"), source.text("two"))})
    with pytest.raises(FeatureError, match="one: 46 pair features, 31 when fitted"):
        builder.transform(wider)
    crooked = PairEmbeddings({"one": (source.audio("two"), source.text("one"))})
    with pytest.raises(FeatureError, match=r"space 'one': .* \(40, 9\) but text .* \(40, 6\)"):
        builder.transform(crooked)
    words = PairEmbeddings(
        {"one": (source.audio("one"),) * 2}, {"asr:words": (np.ones((40, 2)), np.ones((40, 3)))}
    )
    with pytest.raises(FeatureError, match=r"auxiliary 'asr:words': .*\(40, 2\).*\(40, 3\)"):
        FeatureBuilder(["one"], ["asr:words"]).fit(words)


def test_an_auxiliary_row_that_is_not_finite_is_named() -> None:
    a = np.random.default_rng(0).normal(size=(10, 3))
    logits = np.zeros((10, 2))
    logits[6, 1] = np.inf
    source = PairEmbeddings({"one": (a, a + 1)}, {"tags:logits": logits})
    with pytest.raises(FeatureError, match="auxiliary 'tags:logits': row 6"):
        FeatureBuilder(["one"], ["tags:logits"], n_components=1).fit(source)


def test_ids_stand_once_and_spaces_are_named_in_errors() -> None:
    a = np.random.default_rng(0).normal(size=(10, 3))
    with pytest.raises(FeatureError, match=r"twice:(?s:.*)- x"):
        PairEmbeddings({"one": (a[:3], a[:3])}, pair_ids=["x", "y", "x"])
    with pytest.raises(FeatureError, match=r"space 'one': text embeddings: 10 of 10 rows"):
        FeatureBuilder(["one"], n_components=1).fit(PairEmbeddings({"one": (a, a * np.nan)}))
    flat = PairEmbeddings({"one": (a, a + 1)}, {"tags:logits": np.zeros(10)})
    with pytest.raises(FeatureError, match=r"auxiliary 'tags:logits': expected shape"):
        FeatureBuilder(["one"], ["tags:logits"], n_components=1).fit(flat)
    huge = PairEmbeddings({"one": (a, a + 1)}, {"tags:logits": np.full((10, 1), 1e300)})
    with pytest.raises(FeatureError, match="auxiliary 'tags:logits': row 0 and 9 "):
        FeatureBuilder(["one"], ["tags:logits"], n_components=1).fit(huge)
    one = PairEmbeddings({"one": (a[:1], a[1:2])})
    with pytest.raises(FeatureError, match="at least 2 pairs; there are 1 pairs"):
        FeatureBuilder(["one"], n_components=1).fit(one)


def test_blas_threads_change_no_byte() -> None:
    tables = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads):
            builder = FeatureBuilder(["one", "two"], n_components=3)
            tables.append(builder.fit_transform(random_embeddings(0, 400)).values.tobytes())
    assert tables[0] == tables[1]


def test_only_the_embeddings_of_the_rows_are_read() -> None:
    a = np.random.default_rng(0).normal(size=(40, 6))
    a[11] = np.nan
    good = np.arange(40) != 11
    builder = FeatureBuilder(["one"], n_components=2)
    builder.fit(PairEmbeddings({"one": (a[good], a[good])}))
    table = builder.transform(PairEmbeddings({"one": (a, a)}))
    assert np.isfinite(table[good].values).all()
    with pytest.raises(FeatureError, match="space 'one': .* row 1"):
        table[[10, 11]].values


def test_proximities_are_a_block_of_each_space_where_they_are_asked_for() -> None:
    source = random_embeddings(0)
    plain = FeatureBuilder(["one", "two"], ["tags:logits"], n_components=3).fit(source)
    builder = FeatureBuilder(["one", "two"], ["tags:logits"], n_components=3, proximities=True)
    table, before = builder.fit_transform(source), plain.transform(source)
    assert table.families["one"][5:] == ("one/cosine", "one/proximities", "tags/logits")
    assert not any("proximities" in name for name in before.blocks)
    for name in before.blocks:  # all others are as without
        np.testing.assert_array_equal(table.block(name), before.block(name))
    for space in ("one", "two"):
        expected = proximities(source.audio(space), source.text(space))
        np.testing.assert_array_equal(table.block(f"{space}/proximities"), expected)
    for row in range(3):
        alone = builder.transform(source[[row]])
        np.testing.assert_array_equal(alone.values[0], table.values[row])


def test_bad_proximities_are_told() -> None:
    source = random_embeddings(0)
    with pytest.raises(FeatureError, match="proximities must be True or False, got 'yes'"):
        FeatureBuilder(["one"], proximities="yes").fit(source)
    with pytest.raises(FeatureError, match=r"called like blocks of pair.*'one/proximities'"):
        FeatureBuilder(["one"], ["one:proximities"]).fit(source)
    broken = source.text("one").copy()
    broken[4] = 0
    spaces = {"one": (source.audio("one"), broken)}
    table = (
        FeatureBuilder(["one"], n_components=2, proximities=True)
        .fit(source)
        .transform(PairEmbeddings(spaces))
    )
    with pytest.raises(FeatureError, match="space 'one': text embeddings.* row 4"):
        table.block("one/proximities")


def test_agreement_features_can_be_left_out() -> None:
    source = random_embeddings(0)
    settings = {"spaces": ["one", "two"], "auxiliary": ["tags:logits"], "n_components": 3}
    table = FeatureBuilder(**settings).fit_transform(source)
    without = FeatureBuilder(**settings, agreement=False).fit_transform(source)
    assert list(without.families) == ["one", "two"]
    np.testing.assert_array_equal(without.values, table.select(["one", "two"]).values)
