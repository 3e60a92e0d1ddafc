from xacle_stack.results.page import ClipEntry
from xacle_stack.results.page.record import rank_lists


def clip(name: str, score: float, **more: float) -> ClipEntry:
    return ClipEntry(name, "rain", None, None, score, **more)


def test_a_clip_is_disputed_by_what_is_given_or_by_the_distance_to_the_human_score() -> None:
    assert clip("a", 4).disputed_by is None
    assert clip("a", 4, human=6).disputed_by == 2
    assert clip("a", 4, human=6, dispute=0.5).disputed_by == 0.5
    assert clip("a", 4, low=3, high=6).width == 3
    assert clip("a", 4, low=3).width is None


def test_each_list_has_the_clips_that_it_knows_something_of() -> None:
    clips = [
        clip("a", 5, low=1, high=9, novelty=0.1),
        clip("b", 2, human=9, novelty=float("nan")),
        clip("c", 8, human=8, novelty=3.0),
    ]
    worst, best, uncertain, novel, disputed = rank_lists(clips)
    assert (worst, best, uncertain, novel, disputed) == ([1, 0, 2], [2, 0, 1], [0], [2, 0], [1, 2])
