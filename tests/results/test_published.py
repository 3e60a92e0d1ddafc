from xacle_stack.pairs import Pairs
from xacle_stack.results import PUBLISHED, ResultsTable, published_for


def test_published_results_are_for_the_splits_of_xacle_only() -> None:
    ids = tuple(f"{number:05d}.wav" for number in range(10500, 13500))
    test = Pairs("test", ids, (), ids)
    ids_of_validation = tuple(f"{number:05d}.wav" for number in range(7500, 10500))
    validation = Pairs("validation", ids_of_validation, (), ids_of_validation)
    assert {row.split for row in published_for(test)} == {"test"}
    assert set(published_for(validation, test)) == set(PUBLISHED)
    assert published_for(Pairs("test", ids[:-1], (), ids[:-1])) == []
    assert published_for(Pairs("train", ids, (), ids)) == []


def test_what_was_not_published_is_shown_as_unknown() -> None:
    (row,) = (one for one in PUBLISHED if one.system == "TMU, stage 3")
    (line,) = (
        line
        for line in ResultsTable(PUBLISHED).to_markdown().splitlines()
        if "TMU, stage 3" in line
    )
    assert line == "| – | published: TMU, stage 3 | .574 | – | – | – |"
    assert "nan" not in ResultsTable(PUBLISHED).to_markdown()
    assert "published,0,1,3000,0.574000,nan,nan,,,,,,,,,," in ResultsTable([row]).to_csv()


def test_published_results_have_no_intervals() -> None:
    assert all(
        str(row.evaluation.srcc) == f"{row.evaluation.srcc.value:.3f}"[1:] for row in PUBLISHED
    )
    assert {row.evaluation.n_pairs for row in PUBLISHED} == {3000}


def test_the_baselines_of_both_challenges_stand_beside_each_other() -> None:
    of_2027 = {row.split: row for row in PUBLISHED if row.system.endswith("baseline, 2027")}
    values = {
        split: [float(estimate) for estimate in row.evaluation.as_dict().values()]
        for split, row in of_2027.items()
    }
    assert values == {
        "validation": [0.5844, 0.5995, 0.4186, 3.6368],
        "test": [0.5648, 0.6142, 0.3997, 3.1847],
    }
    assert sum(row.system.endswith("baseline, 2026") for row in PUBLISHED) == 2
