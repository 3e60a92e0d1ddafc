"""The comparison as CSV and as Markdown."""

import math
from collections.abc import Sequence
from pathlib import Path

from xacle_stack._csv_table import csv_text, not_a_formula
from xacle_stack._files import write_atomically
from xacle_stack.comparison.compared_system import ComparedSystem
from xacle_stack.metrics import Estimate
from xacle_stack.results import (
    METRIC_NAMES,
    PublishedResult,
    SystemResult,
    markdown_cell,
    rank_of,
)

# Explains the mark of `shown_name`.
CHOSEN_HERE = "† It chose its epoch on this split: these are not figures on unseen pairs."


def write_comparison(
    systems: Sequence[ComparedSystem], published: Sequence[PublishedResult], out: Path
) -> None:
    """Write ``comparison.csv`` and ``comparison.md``.

    Parameters
    ----------
    systems : sequence of ComparedSystem
        The first is the reference.
    published : sequence of PublishedResult
        Rows to show beside them.
    out : Path
        An existing folder.
    """
    write_atomically(out / "comparison.csv", comparison_csv(systems).encode())
    write_atomically(out / "comparison.md", comparison_markdown(systems, published).encode())


def comparison_csv(systems: Sequence[ComparedSystem]) -> str:
    """Return one row a system and split, each metric with its interval."""
    columns = [f"{name}{end}" for name in METRIC_NAMES for end in ("", "_low", "_high")]
    first = ["split", "rank", "system", "kind", "chose_epoch_here", "n_seeds", "n_pairs"]
    last = ["SRCC_spread", "probability_better", "fit_s", "score_ms", "n_parameters"]
    rows: list[list[object]] = [[*first, *columns, *last]]
    for split in splits_of(systems):
        ranks = _ranks(systems, split)
        for system in systems:
            evaluation = system.evaluations[split]
            numbers = [
                number
                for estimate in evaluation.as_dict().values()
                for number in (estimate.value, estimate.low, estimate.high)
            ]
            numbers += [system.srcc_spread[split], system.probability_better[split]]
            row: list[object] = [split, ranks[system.name], not_a_formula(system.name), system.kind]
            row += [int(chose_epoch_on(system, split)), system.n_seeds]
            row += [evaluation.n_pairs, *(f"{number:.6f}" for number in numbers)]
            row += [f"{system.fit_s:.3f}", f"{system.score_ms:.6f}", system.n_parameters]
            rows.append(row)
    return csv_text(rows)


def comparison_markdown(
    systems: Sequence[ComparedSystem], published: Sequence[PublishedResult]
) -> str:
    """Return a section a split, the best system first, published rows below.

    The first system is the reference.
    """
    lines: list[str] = []
    for split in splits_of(systems):
        evaluation = systems[0].evaluations[split]
        header = ["rank", "system", "seeds", *METRIC_NAMES, "± SRCC over seeds"]
        header += [f"P(better than {systems[0].name})", "fit, s", "score, ms/pair", "parameters"]
        lines += [
            f"## {split}: {evaluation.n_pairs} pairs, {evaluation.confidence:.0%} intervals",
            "",
            "| " + " | ".join(header) + " |",
            "|" + "---|" * len(header),
        ]
        for rank, system in enumerate(ranked(systems, split), start=1):
            metrics = map(cell, system.evaluations[split].as_dict().values())
            name = markdown_cell(shown_name(system, split))
            row = [str(rank), name, str(system.n_seeds), *metrics]
            row += [_number(system.srcc_spread[split]), _number(system.probability_better[split])]
            row += [f"{system.fit_s:.1f}", f"{system.score_ms:.3f}", f"{system.n_parameters:,}"]
            lines.append("| " + " | ".join(row) + " |")
        for row_published in published:
            if row_published.split == split:
                values = [f"{value:.4f}" for value in row_published.values]
                row = ["–", f"published: {row_published.system}", "–", *values, *["–"] * 5]
                lines.append("| " + " | ".join(row) + " |")
        lines.append("")
        if any(chose_epoch_on(system, split) for system in systems):
            lines += [CHOSEN_HERE, ""]
    return "\n".join(lines)


def ranked(systems: Sequence[ComparedSystem], split: str) -> list[ComparedSystem]:
    """Return the systems in their official order on a split, the best first."""
    ranks = _ranks(systems, split)
    return sorted(systems, key=lambda system: ranks[system.name])


def _ranks(systems: Sequence[ComparedSystem], split: str) -> dict[str, int]:
    return rank_of(SystemResult(s.name, split, s.evaluations[split]) for s in systems)


def chose_epoch_on(system: ComparedSystem, split: str) -> bool:
    """Return whether a system's figures on a split are not those of unseen pairs."""
    return split == "validation" and system.chose_epoch_on_validation


def shown_name(system: ComparedSystem, split: str) -> str:
    """Return a system's name, marked on the split that it chose its epoch on."""
    return f"{system.name} †" if chose_epoch_on(system, split) else system.name


def splits_of(systems: Sequence[ComparedSystem]) -> list[str]:
    """Return the splits that systems were evaluated on, in their order."""
    return list(dict.fromkeys(split for system in systems for split in system.evaluations))


def cell(estimate: Estimate) -> str:
    """Return a metric with its interval, three digits."""
    # Adding zero turns a rounded -0.000 into 0.000.
    value, low, high = (round(x, 3) + 0.0 for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
