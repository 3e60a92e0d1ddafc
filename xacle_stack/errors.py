"""The errors that this library raises on purpose.

A message says what was wrong and where, what was expected and what to do.  Every error derives from
:class:`XacleStackError` and from the built-in exception that it resembles.
"""

from collections.abc import Iterable, Sequence

MAX_SHOWN = 20


class XacleStackError(Exception):
    """The base class; ``except XacleStackError`` catches every expected failure."""


class PairsError(XacleStackError, ValueError):
    """A data folder, one of its CSV files, or its ratings cannot be used."""


class AudioError(XacleStackError, ValueError):
    """An audio file cannot be decoded, or holds no usable samples."""


class ClipTooLongError(AudioError):
    """A clip holds more samples than are allowed."""


class MetricError(XacleStackError, ValueError):
    """Scores cannot be compared."""


class SubmissionError(XacleStackError, ValueError):
    """A file of predictions does not fit its pairs, or cannot be read or written."""


class UnknownNameError(XacleStackError, LookupError):
    """A name is unknown; the message lists the known ones."""


class MissingExtraError(XacleStackError, ImportError):
    """An optional package is not installed."""


class EncoderError(XacleStackError, ValueError):
    """An encoder, its checkpoint or its output breaks the encoder contract."""


class CacheError(XacleStackError, OSError):
    """A feature store is damaged or incomplete, or cannot be written."""


class FeatureError(XacleStackError, ValueError):
    """Embeddings cannot be turned into features."""


class StackingError(XacleStackError, ValueError):
    """The stacker cannot use its input or settings."""


class ModelFileError(XacleStackError, ValueError):
    """A saved model is damaged, foreign or not trusted."""


class WorkerError(XacleStackError, RuntimeError):
    """A worker process died, or cannot see what all workers must."""


class RecipeError(XacleStackError, ValueError):
    """A recipe file has unknown, missing or wrong settings."""


class DemoError(XacleStackError, ValueError):
    """The demo data set cannot be made as asked."""


class DemoExistsError(DemoError, FileExistsError):
    """The demo data set would overwrite a file or a folder."""


def bullet_list(lines: Iterable[str]) -> str:
    """Return the first :data:`MAX_SHOWN` lines as a list, and the number of the others."""
    lines = list(lines)
    shown = [f"  - {line}" for line in lines[:MAX_SHOWN]]
    if len(lines) > MAX_SHOWN:
        shown.append(f"  … and {len(lines) - MAX_SHOWN} more")
    return "\n".join(shown)


def one_or_all(summary: str, reasons: Sequence[str]) -> str:
    """Return the only reason, or how many there are of what, and a list of them.

    Examples
    --------
    >>> print(one_or_all("clips cannot be used", ["a.wav: empty", "b.wav: missing"]))
    2 clips cannot be used:
      - a.wav: empty
      - b.wav: missing
    """
    return reasons[0] if len(reasons) == 1 else f"{len(reasons)} {summary}:\n{bullet_list(reasons)}"
