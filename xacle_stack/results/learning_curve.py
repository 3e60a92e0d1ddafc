"""How the figures of a system grow with the pairs that it is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from numpy.typing import ArrayLike

from xacle_stack._csv_table import csv_text
from xacle_stack.metrics import Estimate, evaluate, srcc_gain


@dataclass(frozen=True)
class LearningCurve:
    """The SRCC on the same held-out pairs, after training on few and on more pairs.

    Attributes
    ----------
    n_training_pairs : tuple of int
        Ascending; means over the folds.
    srcc : tuple of Estimate
        The SRCC at each number of training pairs, with its bootstrap interval.
    last_gain : Estimate, optional
        The SRCC at the last number minus that at the number before it, with its paired bootstrap
        interval; None if there is one number only.
    """

    n_training_pairs: tuple[int, ...]
    srcc: tuple[Estimate, ...]
    last_gain: Estimate | None

    @classmethod
    def from_scores(
        cls,
        y_true: ArrayLike | None,
        scores: Mapping[int, ArrayLike],
        *,
        groups: Sequence[str] | None = None,
    ) -> Self:
        """Evaluate the scores of the same pairs, by the number of pairs trained on.

        Parameters
        ----------
        y_true : array-like of shape (n_pairs,)
            Human scores.
        scores : mapping of int to array-like of shape (n_pairs,)
            Ascending numbers of training pairs, each with the scores.
        groups : sequence of str, optional
            See :func:`xacle_stack.metrics.evaluate`.

        Examples
        --------
        >>> y_true = list(range(8))
        >>> curve = LearningCurve.from_scores(y_true, {10: y_true[::-1], 20: y_true})
        >>> curve.n_training_pairs, float(curve.last_gain)
        ((10, 20), 2.0)
        """
        values = [*scores.values()]
        estimates = (evaluate(y_true, each, groups=groups).srcc for each in values)
        gain = srcc_gain(y_true, values[-1], values[-2], groups=groups) if values[1:] else None
        return cls(tuple(scores), tuple(estimates), gain)

    @property
    def finding(self) -> str:
        """What the last step of the curve says of further ratings."""
        if self.last_gain is None:
            return "There are too few training pairs for a learning curve."
        few, many = self.n_training_pairs[-2:]
        gain = self.last_gain
        if gain.low > 0:
            verdict = "it still rises, so more ratings are likely to help"
        elif gain.high < 0:
            verdict = "it falls, so look at the ratings before you collect more"
        else:
            verdict = "the interval includes 0, so it is open whether more ratings help"
        return f"From {few:,} to {many:,} training pairs the SRCC changes by {gain:+}: {verdict}."

    @property
    def points(self) -> str:
        """The SRCC at each number of training pairs, in one line."""
        pairs = zip(self.n_training_pairs, self.srcc, strict=True)
        return "SRCC by training pairs: " + "; ".join(f"{n:,}: {srcc}" for n, srcc in pairs) + "."

    def to_csv(self) -> str:
        """Return one row for each number of training pairs."""
        rows: list[Sequence[object]] = [("n_training_pairs", "SRCC", "SRCC_low", "SRCC_high")]
        for n_pairs, e in zip(self.n_training_pairs, self.srcc, strict=True):
            rows.append((n_pairs, *(f"{end:.6f}" for end in (e.value, e.low, e.high))))
        return csv_text(rows)
