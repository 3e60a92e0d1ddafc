"""Shows a progress bar during long work."""

import sys
from typing import Any

from tqdm import tqdm

from xacle_stack._printable import printable_name

# A log file gets a line only now and then.
_LOG_INTERVAL_S = 30.0


def progress_bar(title: str, total: int, unit: str, *, shown: bool) -> "tqdm[Any]":
    """Return a bar on stderr with items per second and time left.

    Parameters
    ----------
    title : str
    total : int
        If it is 0, no bar is shown.
    unit : str
        A plural, for example ``"clips"``.
    shown : bool
    """
    if not (shown and total):
        return tqdm(disable=True)
    # Imported here, because the import warns in a notebook without ipywidgets.
    from tqdm.auto import tqdm as terminal_or_notebook

    return terminal_or_notebook(
        total=total,
        desc=printable_name(title),
        unit=f" {unit}",
        mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL_S,
    )
