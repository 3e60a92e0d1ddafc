import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from xacle_stack.errors import FeatureError, UnknownNameError
from xacle_stack.features import FeatureBuilder, PairEmbeddings
from xacle_stack.table import FeatureTable

BLOCKS = {"late": slice(3, 5), "first": slice(0, 1), "middle": slice(1, 3)}
FAMILIES = {"outer": ("first", "late"), "late": ("late", "middle")}
IDS = ("a", "b", "c")


def held_table() -> FeatureTable:
    return FeatureTable(np.arange(15.0).reshape(3, 5), BLOCKS, IDS, FAMILIES)


@pytest.fixture(scope="module")
def lazy() -> FeatureTable:
    rng = np.random.default_rng(0)
    spaces = {
        name: tuple(rng.normal(size=(2, 40, n_dims))) for name, n_dims in (("a", 6), ("b", 9))
    }
    source = PairEmbeddings(spaces, {"tags:logits": rng.normal(size=(40, 3))})
    return FeatureBuilder(["a", "b"], ["tags:logits"], n_components=3).fit_transform(source)


def test_a_family_is_its_blocks_in_their_order() -> None:
    table = held_table()
    assert (len(table), table.shape) == (3, (3, 5))
    assert list(table.blocks) == ["first", "middle", "late"]  # by column
    assert table.families == FAMILIES
    np.testing.assert_array_equal(table.family("outer"), table.values[:, [0, 3, 4]])
    np.testing.assert_array_equal(table.family("late"), table.values[:, [3, 4, 1, 2]])
    np.testing.assert_array_equal(table.block("middle"), table.values[:, 1:3])
    np.testing.assert_array_equal(table.rows(slice(1, 3), ("late",)), table.values[1:, 3:])
    assert table.width("first", "late") == 3
    assert table.get_feature_names_out().tolist() == [
        *("first[0]", "middle[0]", "middle[1]", "late[0]", "late[1]")
    ]
    assert repr(table) == "FeatureTable(3 pairs, 5 features: outer 3, late 4)"


def test_without_families_each_block_is_one_and_rows_are_numbered() -> None:
    table = FeatureTable(np.eye(3), {"a": slice(0, 2), "b": slice(2, 3)})
    assert table.families == {"a": ("a",), "b": ("b",)}
    assert table.pair_ids == ("0", "1", "2")


def test_an_array_is_not_copied_where_columns_are_neighbours() -> None:
    table = held_table()
    for part in (table.values, table.block("late"), table.rows(slice(1, 2), ["first", "middle"])):
        assert np.shares_memory(part, table.values)


def test_some_families_are_a_table_of_their_blocks(lazy) -> None:
    part = held_table().select(["outer"])
    assert part.families == {"outer": ("first", "late")}
    assert part.blocks == {"first": slice(0, 1), "late": slice(1, 3)}
    np.testing.assert_array_equal(part.values, held_table().values[:, [0, 3, 4]])
    without = lazy.select([name for name in lazy.families if name != "a"])
    assert "tags/logits" in without.blocks  # the other family shares it
    assert not any(name.startswith("a/") for name in without.blocks)
    np.testing.assert_array_equal(without.family("b"), lazy.family("b"))
    with pytest.raises(UnknownNameError, match="'c'; there are: a, b, agreement"):
        lazy.select(["c"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pair_ids": ("a", "b")}, "3 rows for 2 pair_ids"),
        ({"values": np.ones(3)}, r"\(n_pairs, n_features\), got \(3,\)"),
        ({"blocks": {"one": slice(0, 3)}}, "each of the 5 columns once: together they have 3"),
        ({"blocks": {}}, "blocks: there are none"),
        ({"blocks": {"one": slice(None)}}, "start and a stop.* 'one'"),
        ({"blocks": {"one": 3}}, "start and a stop.* 'one', got 3"),
        ({"blocks": {"one": slice(0, 3), "two": slice(2, 5)}}, "'two' .*column 2, .* 3"),
        (
            {"families": {"all": ["first", "last"]}},
            r"'all'.* no blocks \['last'\], only .*'middle'",
        ),
        ({"families": {"all": ["first", "middle"]}}, r"in no family: \['late'\]"),
        ({"families": {"all": ["first", "first"]}}, "'all': .* twice"),
        ({"families": {"all": slice(0, 5)}}, "'all': .* got slice"),
        ({"families": {}}, r"in no family: .*'first'"),
    ],
)
def test_parts_that_do_not_fit_are_told(given, message: str) -> None:
    parts = {
        "values": np.ones((3, 5)),
        "blocks": BLOCKS,
        "pair_ids": IDS,
        "families": None if "blocks" in given else FAMILIES,
    }
    FeatureTable(**{**parts, "blocks": BLOCKS})
    with pytest.raises(FeatureError, match=message):
        FeatureTable(**{**parts, **given})


def test_nothing_turns_a_table_into_an_array_by_itself(lazy) -> None:
    for table in (held_table(), lazy):
        for melt in (np.asarray, np.array, np.isfinite, StandardScaler().fit):
            with pytest.raises(FeatureError, match=r"write table\.values"):
                melt(table)
        with pytest.raises(FeatureError):
            list(table)


def test_names_that_do_not_exist_are_told(lazy) -> None:
    with pytest.raises(UnknownNameError, match="family 'c'; there are: a, b, agreement"):
        lazy.family("c")
    with pytest.raises(UnknownNameError, match="block 'a/sound'; there are: a/audio, a/text"):
        lazy.block("a/sound")


def test_rows_are_neighbours(lazy) -> None:
    assert lazy.rows(slice(7, 7)).shape == (0, lazy.shape[1])
    assert lazy.rows(slice(30, 2), ("a/cosine",)).shape == (0, 1)
    assert lazy.rows(slice(-3, None), ("a/audio", "tags/logits")).shape == (3, 9)
    assert lazy.rows(slice(38, 99)).dtype == np.float32
    with pytest.raises(FeatureError, match="got slice"):
        lazy.rows(slice(0, 9, 2))


KEYS = [
    slice(5, 17),
    slice(None, None, -3),
    slice(0, 0),
    [3, 1, 1, -1],
    [],
    np.array([7]),
    np.arange(40) % 3 == 0,
    [True, False] * 20,
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_table_of_some_rows_is_the_table_of_these_pairs(key, lazy) -> None:
    held = FeatureTable(lazy.values, lazy.blocks, lazy.pair_ids, lazy.families)
    rows = np.arange(40)[key if isinstance(key, slice) or len(key) else slice(0, 0)]
    for table in (lazy, held):
        for part in (table[key], table[key, ...]):
            assert (part.families, part.blocks) == (table.families, table.blocks)
            assert part.pair_ids == tuple(table.pair_ids[row] for row in rows)
            assert part.values.tobytes() == table.values[rows].tobytes()
            assert part[::-1].family("b").tobytes() == table.family("b")[rows][::-1].tobytes()


@pytest.mark.parametrize(
    "key",
    [3, np.int64(3), (slice(None), 3), (slice(None), [1, 2]), "one", None, [[1, 2]], ...],
    ids=repr,
)
def test_what_is_no_rows_is_refused_with_what_to_write(key, lazy) -> None:
    with pytest.raises(FeatureError, match=r"one row write \[3:4\].* table\.family\(name\)"):
        lazy[key]


def test_rows_that_do_not_exist_are_told(lazy) -> None:
    with pytest.raises(IndexError, match=r"\b40 is out"):
        lazy[[40]]
    with pytest.raises(IndexError, match="boolean"):
        lazy[[True, False]]
    with pytest.raises(IndexError, match="integer"):
        lazy[[0.5]]
