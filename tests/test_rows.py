from xacle_stack._rows import repeated_rows


def test_repeated_rows_name_the_first_of_each() -> None:
    assert repeated_rows([]) == {}
    assert repeated_rows(["a"]) == {}
    assert repeated_rows([str(row) for row in range(5000)]) == {}
    assert repeated_rows(["b", "a", "b", "b", "a", "c"]) == {2: 0, 3: 0, 4: 1}


def test_items_of_equal_hash_are_not_repeated() -> None:
    assert hash(-1) == hash(-2)
    assert repeated_rows([-1, -2, 5, -1, 5]) == {3: 0, 4: 2}
