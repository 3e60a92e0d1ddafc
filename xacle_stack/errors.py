"""Every error that this library raises on purpose.

Each says what was wrong and where, what was expected and what to do.  All derive from
:class:`XacleStackError`; each is also the built-in exception that it resembles.
"""

from collections.abc import Iterable

MAX_SHOWN = 20


class XacleStackError(Exception):
    """Base class: ``except XacleStackError`` catches every expected failure."""


class PairsError(XacleStackError, ValueError):
    """A data folder, one of its CSV files, or its ratings cannot be used."""


class AudioError(XacleStackError, ValueError):
    """An audio file cannot be decoded, or holds no usable samples."""


class MetricError(XacleStackError, ValueError):
    """Scores that cannot be compared."""


class SubmissionError(XacleStackError, ValueError):
    """A file of predictions that does not fit its pairs."""


class UnknownNameError(XacleStackError, LookupError):
    """A name that stands in no table; the message lists the known ones."""


class MissingExtraError(XacleStackError, ImportError):
    """An optional package that is not installed."""


class EncoderError(XacleStackError, ValueError):
    """An encoder, its checkpoint or its output breaks the encoder contract."""


class CacheError(XacleStackError, OSError):
    """A feature store that is damaged, incomplete or cannot be written."""


class FeatureError(XacleStackError, ValueError):
    """Embeddings that cannot become features."""


class StackingError(XacleStackError, ValueError):
    """Input or settings that the stacker cannot work with."""


class ModelFileError(XacleStackError, ValueError):
    """A saved model that is damaged, foreign or not trusted."""


class RecipeError(XacleStackError, ValueError):
    """A recipe file with unknown, missing or wrong settings."""


class DemoError(XacleStackError, ValueError):
    """The demo data set cannot be made as asked."""


class DemoExistsError(DemoError, FileExistsError):
    """The demo data set would overwrite something."""


def bullet_list(lines: Iterable[str]) -> str:
    """Return the first :data:`MAX_SHOWN` lines as a list, then how many are not shown."""
    lines = list(lines)
    shown = [f"  - {line}" for line in lines[:MAX_SHOWN]]
    if len(lines) > MAX_SHOWN:
        shown.append(f"  … and {len(lines) - MAX_SHOWN} more")
    return "\n".join(shown)
