"""The progress bar of long work."""

import sys
from typing import Any

from tqdm.auto import tqdm

# A log file gets a line now and then, not one a redraw.
_LOG_INTERVAL_S = 30.0


def progress_bar(title: str, total: int, unit: str, *, shown: bool) -> "tqdm[Any]":
    """Return a bar on stderr with items per second and time left.

    Parameters
    ----------
    title : str
    total : int
        Without work there is no bar.
    unit : str
        Plural: ``"clips"``.
    shown : bool
    """
    return tqdm(
        total=total,
        desc=title,
        unit=f" {unit}",
        disable=not (shown and total),
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL_S,
    )
