"""The results table: systems, their metrics with intervals, and the published rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xacle_stack._csv_table import csv_text, not_a_formula
from xacle_stack._printable import printable_name
from xacle_stack.errors import PairsError
from xacle_stack.metrics import METRICS, Evaluation, rank_systems
from xacle_stack.pairs import Pairs

METRIC_NAMES = tuple(METRICS)


@dataclass(frozen=True)
class SystemResult:
    """One system's metrics on one split.

    Attributes
    ----------
    system : str
    split : str
    evaluation : Evaluation
    """

    system: str
    split: str
    evaluation: Evaluation


@dataclass(frozen=True)
class PublishedResult:
    """A row of the challenge's literature: values without intervals."""

    system: str
    split: Literal["validation", "test"]
    values: tuple[float, float, float, float]


# Li, Li and Shinozaki 2026; Okamoto et al. 2026 for the baseline and the other teams (Niizumi et
# al. for Trust-your-CLAP).  SRCC, LCC, KTAU, MSE.
PUBLISHED = (
    PublishedResult("first of the challenge", "test", (0.6402, 0.6873, 0.4612, 3.0111)),
    PublishedResult("TMU, rank average", "test", (0.6327, 0.6426, 0.4564, 9.5999)),
    PublishedResult("Trust-your-CLAP", "test", (0.5672, 0.6346, 0.4021, 3.9274)),
    PublishedResult("3-CLAP stack", "test", (0.5934, 0.6507, 0.4233, 2.9418)),
    PublishedResult("2-CLAP stack", "test", (0.5852, 0.6396, 0.4165, 3.0153)),
    PublishedResult("MS-CLAP single", "test", (0.5521, 0.6035, 0.3901, 3.2500)),
    PublishedResult("LAION unfused single", "test", (0.5361, 0.5842, 0.3784, 3.3782)),
    PublishedResult("LAION fused single", "test", (0.5083, 0.5530, 0.3570, 3.5872)),
    PublishedResult("BEATs only", "test", (0.2584, 0.2686, 0.1747, 5.7734)),
    PublishedResult("organisers' baseline", "test", (0.3345, 0.3420, 0.2290, 4.8110)),
    PublishedResult("first of the challenge", "validation", (0.6680, 0.6800, 0.4860, 3.3340)),
    PublishedResult("TMU, rank average", "validation", (0.6780, 0.6716, 0.4939, 8.3798)),
    PublishedResult("3-CLAP stack (rank target)", "validation", (0.6476, 0.6718, 0.4698, 7.1189)),
    PublishedResult("2-CLAP stack (rank target)", "validation", (0.6439, 0.6671, 0.4664, 7.0548)),
    PublishedResult("CLAP rank ensemble", "validation", (0.6061, 0.6357, 0.4358, 7.0520)),
    PublishedResult("LAION unfused single", "validation", (0.5988, 0.6286, 0.4302, 3.4297)),
    PublishedResult("MS-CLAP single", "validation", (0.5979, 0.6135, 0.4288, 3.5347)),
    PublishedResult("LAION fused single", "validation", (0.5631, 0.5926, 0.4016, 3.6744)),
    PublishedResult("organisers' baseline", "validation", (0.3844, 0.3961, 0.2646, 4.8361)),
)

# File numbers of the challenge's splits.
_XACLE_NUMBERS = {"validation": range(7500, 10500), "test": range(10500, 13500)}


def published_for(pairs: Pairs) -> list[PublishedResult]:
    """Return the published rows for a split of the XACLE data set; none for other data.

    Examples
    --------
    >>> published_for(Pairs("test", ("dog.wav",), (), ("a dog barks",)))
    []
    """
    numbers = _XACLE_NUMBERS.get(pairs.split, range(0))
    if pairs.ids != tuple(f"{number:05d}.wav" for number in numbers):
        return []
    return [row for row in PUBLISHED if row.split == pairs.split]


def judged_splits(data: Path, splits: Mapping[str, Pairs]) -> dict[str, Pairs]:
    """Return the splits that have scores to evaluate on.

    Raises
    ------
    PairsError
        If one of them has a single pair.
    """
    judged = {split: pairs for split, pairs in splits.items() if pairs.scores is not None}
    for split, pairs in judged.items():
        if len(pairs) < 2:
            raise PairsError(f"{data}: the split {split!r} has one pair; metrics need two or more.")
    return judged


def published_beside(splits: Iterable[Pairs]) -> list[PublishedResult]:
    """Return the published rows of several splits; see :func:`published_for`."""
    return [row for pairs in splits for row in published_for(pairs)]


def rank_of(results: Iterable[SystemResult]) -> dict[str, int]:
    """Return each system's rank within one split, from 1, by the official tie-breaks."""
    by_name = {result.system: result.evaluation for result in results}
    return {name: rank for rank, name in enumerate(rank_systems(by_name), start=1)}


def results_csv(results: Sequence[SystemResult]) -> str:
    """Return the table as CSV: one row a system and split, each metric with its interval."""
    columns = [f"{name}{end}" for name in METRIC_NAMES for end in ("", "_low", "_high")]
    rows: list[list[object]] = [["split", "rank", "system", "n_pairs", *columns]]
    for split in dict.fromkeys(result.split for result in results):
        of_split = [result for result in results if result.split == split]
        ranks = rank_of(of_split)
        for result in of_split:
            numbers = [
                f"{number:.6f}"
                for estimate in result.evaluation.as_dict().values()
                for number in (estimate.value, estimate.low, estimate.high)
            ]
            row = [split, ranks[result.system], not_a_formula(result.system)]
            rows.append([*row, result.evaluation.n_pairs, *numbers])
    return csv_text(rows)


def markdown_cell(name: str) -> str:
    r"""Return a name as one cell of a Markdown table, in which nothing of it is markup.

    Examples
    --------
    >>> print(markdown_cell("a|b <i>"))
    a\|b &lt;i>
    """
    return printable_name(name).replace("|", "\\|").replace("<", "&lt;")


def results_markdown(
    results: Sequence[SystemResult], published: Sequence[PublishedResult] = ()
) -> str:
    """Return the table as Markdown, one section a split, published rows below ours."""
    lines: list[str] = []
    for split in dict.fromkeys(result.split for result in results):
        of_split = [result for result in results if result.split == split]
        ranks = rank_of(of_split)
        evaluation = of_split[0].evaluation
        lines += [
            f"## {split}: {evaluation.n_pairs} pairs, {evaluation.confidence:.0%} intervals",
            "",
            "| rank | system | " + " | ".join(METRIC_NAMES) + " |",
            "|---|---|" + "---|" * len(METRIC_NAMES),
        ]
        lines += [
            f"| {ranks[result.system]} | {markdown_cell(result.system)} | "
            + " | ".join(map(str, result.evaluation.as_dict().values()))
            + " |"
            for result in of_split
        ]
        lines += [
            f"| – | published: {row.system} | "
            + " | ".join(f"{value:.4f}" for value in row.values)
            + " |"
            for row in published
            if row.split == split
        ]
        lines.append("")
    return "\n".join(lines)
