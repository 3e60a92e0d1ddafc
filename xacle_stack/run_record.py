"""The record of a run, ``results.json``: what was run on what, and every figure in full.

It holds what `xacle-stack reproduce` needs to run the same again and to tell what differs.  It may
be anybody's: nothing that it names is run.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict, ValidationError

from xacle_stack._files import read_small_file, write_atomically
from xacle_stack._printable import printable_name
from xacle_stack.cache import CachedPairs
from xacle_stack.data_facts import N_DIGITS, DataFacts, pair_digests
from xacle_stack.errors import ModelFileError, RecipeError, bullet_list
from xacle_stack.metrics import Estimate
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.recipe_file import MAX_BYTES as MAX_RECIPE_BYTES
from xacle_stack.recipe_file import check_values
from xacle_stack.results import Result
from xacle_stack.stacking.tree_libraries import LIBRARIES
from xacle_stack.systems.specs import AnySpec, EnsembleSpec

RECORD = "results.json"
FORMAT_VERSION: Literal[1] = 1
# About 25 million pairs.
_MAX_BYTES = 2**28
# A recipe file may have a fourth of that; a record also holds what it leaves out.
_MAX_RECIPE_CHARS = 4 * MAX_RECIPE_BYTES
_LIBRARIES = ("xacle-stack", "numpy", "scipy", "scikit-learn", "lightgbm")

# A value and the ends of its interval; None where one is undefined.
Interval = tuple[float | None, float | None, float | None]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Command(_Facts):
    """The command that was given, with what it says of the recipe and of the table of pairs.

    Its name tells which systems of the recipe are run; a run from Python has no command.
    """

    name: Literal["stack", "compare", "evaluate"]
    seeds: int | None = None
    precision: str | None = None
    audio_column: str | None = None
    text_column: str | None = None
    audio_root: str | None = None

    def systems(self, recipe: Recipe) -> Mapping[str, AnySpec]:
        """Return the systems of a recipe that the command runs, the reference first."""
        if self.name == "compare":
            return recipe.compared_systems
        systems = recipe.stack_systems
        return systems if self.name == "stack" else dict([next(iter(systems.items()))])


class SetFacts(DataFacts):
    """A set of pairs, and the digest of each pair, 8 hexadecimal digits, in their order."""

    pairs: str

    @property
    def digests(self) -> list[str]:
        """The digests of the pairs."""
        return [
            self.pairs[start : start + N_DIGITS] for start in range(0, len(self.pairs), N_DIGITS)
        ]


class Curve(_Facts):
    """A learning curve; see :class:`~xacle_stack.results.LearningCurve`."""

    n_training_pairs: tuple[int, ...]
    srcc: tuple[Interval, ...]


class Figures(_Facts):
    """A :class:`~xacle_stack.results.Result` as JSON can hold it."""

    system: str
    split: str
    kind: str
    n_pairs: int
    n_groups: int | None
    confidence: float
    n_seeds: int
    metrics: dict[str, Interval]
    srcc_spread: float | None
    srcc_difference: Interval | None
    probability_better: float | None
    fit_s: float | None
    score_ms: float | None
    n_parameters: int | None
    chose_epoch_here: bool
    learning_curve: Curve | None

    @classmethod
    def of(cls, result: Result) -> Figures:
        """Return the figures of a result."""
        evaluation, curve = result.evaluation, result.learning_curve
        return cls(
            system=result.system,
            split=result.split,
            kind=result.kind,
            n_pairs=evaluation.n_pairs,
            n_groups=evaluation.n_groups,
            confidence=evaluation.confidence,
            n_seeds=result.n_seeds,
            metrics={name: _interval(one) for name, one in evaluation.as_dict().items()},
            srcc_spread=finite_or_none(result.srcc_spread),
            srcc_difference=None if result.difference is None else _interval(result.difference),
            probability_better=finite_or_none(result.probability_better),
            fit_s=result.fit_s,
            score_ms=result.score_ms,
            n_parameters=result.n_parameters,
            chose_epoch_here=result.chose_epoch_here,
            learning_curve=None
            if curve is None
            else Curve(
                n_training_pairs=curve.n_training_pairs, srcc=tuple(map(_interval, curve.srcc))
            ),
        )

    def compared(self) -> Iterator[tuple[str, Interval]]:
        """Yield the figures that another run must give, too: no times, and nothing counted twice.

        The probability of being better is counted on the resamples of the difference's interval.
        """
        yield from self.metrics.items()
        if self.srcc_difference is not None:
            yield "SRCC difference", self.srcc_difference
        if self.srcc_spread is not None:
            yield "SD over seeds", (self.srcc_spread, None, None)
        if self.learning_curve is not None:
            curve = self.learning_curve
            for n_pairs, srcc in zip(curve.n_training_pairs, curve.srcc, strict=False):
                yield f"SRCC after {n_pairs:,} pairs", srcc


class EncoderFacts(_Facts):
    """What an encoder was."""

    fingerprint: str
    licence: str


class RunRecord(_Facts):
    """What a run was made of, and its figures.

    Attributes
    ----------
    format_version : int
    command : Command, optional
        None for a run from Python.
    data, store : str
        Absolute paths.
    train : str
        The set that was trained on.
    n_folds : int
        Of the cross-validation, if no other set has scores.
    sets : dict of str to SetFacts
        Those of the data set; then the tables of earlier stages of training, as ``stage 1``, ….
    recipe : dict
        Every setting.
    random_state : int or None
        That of the first fit; each further seed adds 1.
    encoders : dict of str to EncoderFacts
        By the encoder's own name, views included.
    versions : dict of str to str or None
        Of Python and of the libraries that the encoders and systems use.
    machine : str
    started : datetime
    seconds : float
    results : tuple of Figures
    """

    format_version: Literal[1] = FORMAT_VERSION
    command: Command | None
    data: str
    store: str
    train: str
    n_folds: int
    sets: dict[str, SetFacts]
    recipe: dict[str, Any]
    random_state: int | None
    encoders: dict[str, EncoderFacts]
    versions: dict[str, str | None]
    machine: str
    started: datetime
    seconds: float = 0.0
    results: tuple[Figures, ...] = ()

    @classmethod
    def of(
        cls,
        data: Path,
        store: Path,
        recipe: Recipe,
        systems: Iterable[AnySpec],
        sets: Mapping[str, CachedPairs],
        *,
        train: str,
        n_folds: int,
        command: Command | None = None,
    ) -> RunRecord:
        """Return the record of a run that begins now.

        Parameters
        ----------
        data, store : Path
        recipe : Recipe
        systems : iterable of SystemSpec or EnsembleSpec
        sets : mapping of str to CachedPairs
            The sets of the data set, and the tables of earlier stages of training.
        train : str
        n_folds : int
        command : Command, optional
        """
        stacker: Any = recipe.new_stacker()
        licences = {
            choice.info.name: choice.info.licence
            for choice in (*recipe.encoders, *recipe.view_encoders)
        }
        return cls(
            command=command,
            data=str(data.resolve()),
            store=str(store.resolve()),
            train=train,
            n_folds=n_folds,
            sets={name: _set_facts(one) for name, one in sets.items()},
            recipe=recipe.model_dump(mode="json"),
            random_state=stacker.random_state,
            encoders={
                name: EncoderFacts(fingerprint=fingerprint, licence=licences[name])
                for name, fingerprint in recipe.fingerprints().items()
            },
            versions=_versions(recipe, systems),
            machine=machine(),
            started=datetime.now(UTC).replace(microsecond=0),
        )

    def with_results(self, results: Iterable[Result]) -> RunRecord:
        """Return the record with the run's own results so far; published ones are left out."""
        now = datetime.now(UTC)
        return self.model_copy(
            update={
                "seconds": round((now - self.started).total_seconds(), 1),
                "results": tuple(Figures.of(one) for one in results if not one.is_published),
            }
        )

    def recipe_again(self, source: str) -> Recipe:
        """Return the recipe of the run, without the code that it allowed to be run.

        Raises
        ------
        RecipeError
            If it names a Python file, which is not run on a record's word, or has mistakes.
        """
        text = json.dumps(self.recipe)
        if ".py:" in text:
            raise RecipeError(
                f"{source}: its recipe names an encoder from a Python file, which is not run on a "
                "record's word. If you trust it, name the recipe that names it, with --recipe."
            )
        if len(text) > _MAX_RECIPE_CHARS:
            raise RecipeError(f"{source}: its recipe is longer than any recipe needs to be.")
        settings = {**self.recipe, "code": {}}
        check_values(settings, source)
        return recipe_from(settings, source)

    def write(self, folder: Path) -> None:
        """Write ``results.json`` into a folder."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False)
        write_atomically(folder / RECORD, f"{text}\n".encode())


def read_record(run: Path) -> RunRecord:
    """Return the record in the folder of a run.

    Raises
    ------
    ModelFileError
        If there is none, or it is damaged or of another format.
    """
    path = run / RECORD
    try:
        found = json.loads(read_small_file(path, _MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        is_run = (run / "results.csv").exists()
        raise ModelFileError(
            f"{path}: no such file. "
            + (
                "This run was made by a version that wrote none, so nobody knows all that it was "
                "made from. Run `xacle-stack stack` or `compare` again."
                if is_run
                else "Give the folder of a run, which `xacle-stack stack`, `compare` or "
                "`evaluate --cv` has written."
            )
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not readable as the record of a run ({error}).") from None
    form = found.get("format_version") if isinstance(found, dict) else None
    if isinstance(form, int) and form > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: format {form}, but this release reads {FORMAT_VERSION}. Use the release that "
            "wrote it."
        )
    try:
        return RunRecord.model_validate(found)
    except ValidationError as error:
        mistakes = [
            f"{'.'.join(map(printable_name, one['loc']))}: {one['msg']}" for one in error.errors()
        ]
        raise ModelFileError(
            f"{path}: not the record of a run, or damaged. Run it again with `xacle-stack stack` "
            f"or `compare`:\n{bullet_list(mistakes)}"
        ) from None


def machine() -> str:
    """Return this machine in one line: system, processor, cores, memory, and a GPU that is used."""
    parts = [f"{platform.system()} {platform.machine()}", _processor()]
    parts.append(f"{os.cpu_count()} cores")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        parts.append(f"{n_bytes / 2**30:.0f} GiB")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(part for part in parts if part)


def finite_or_none(value: float) -> float | None:
    """Return what JSON can hold: a correlation with a constant is undefined."""
    return value if math.isfinite(value) else None


def differences(before: RunRecord, now: RunRecord) -> list[str]:
    """Return what two runs differ in that may change figures, one line each.

    Parameters
    ----------
    before, now : RunRecord

    Returns
    -------
    lines : list of str
        Data first, then recipe, fingerprints, versions and machine; empty if all is the same.
    """
    lines = [
        f"data, {printable_name(name)}: {text}"
        for name in dict.fromkeys([*before.sets, *now.sets])
        if (text := _changed_pairs(before.sets.get(name), now.sets.get(name)))
    ]
    for what, one, other in (
        ("trained on", before.train, now.train),
        ("folds", before.n_folds, now.n_folds),
        ("random state", before.random_state, now.random_state),
    ):
        lines += [] if one == other else [f"{what}: {one!r}, now {other!r}"]
    for what, old, new in (
        ("recipe", _flat(before.recipe), _flat(now.recipe)),
        ("fingerprint", _fingerprints(before), _fingerprints(now)),
        ("version", before.versions, now.versions),
    ):
        lines += [
            f"{what}, {printable_name(key)}: {_shown(old.get(key))}, now {_shown(new.get(key))}"
            for key in dict.fromkeys([*old, *new])
            if old.get(key) != new.get(key)
        ]
    if before.machine != now.machine:
        lines.append(f"machine: {printable_name(before.machine)}; now {now.machine}")
    return lines


@dataclass(frozen=True)
class Change:
    """A figure of two runs.

    Attributes
    ----------
    split, system, figure : str
    before, now : Estimate or None
        None where the run has no such figure.
    difference : float
        The largest difference of the values and of the ends of the intervals; infinite where only
        one run has a number.
    """

    split: str
    system: str
    figure: str
    before: Estimate | None
    now: Estimate | None
    difference: float


def changes(before: RunRecord, now: RunRecord) -> list[Change]:
    """Return every figure of a run beside that of another, in the first one's order."""
    again = {(one.split, one.system): dict(one.compared()) for one in now.results}
    return [
        Change(
            *(result.split, result.system, figure, _estimate(old)),
            None
            if (new := again.get((result.split, result.system), {}).get(figure)) is None
            else _estimate(new),
            _distance(old, new),
        )
        for result in before.results
        for figure, old in result.compared()
    ]


def _set_facts(embeddings: CachedPairs) -> SetFacts:
    digests = pair_digests(embeddings)
    facts = DataFacts.of(embeddings, digests)
    return SetFacts(**facts.model_dump(), pairs="".join(digests))


def _versions(recipe: Recipe, systems: Iterable[AnySpec]) -> dict[str, str | None]:
    used = dict.fromkeys(_LIBRARIES)
    settings = _flat(recipe.model_dump(mode="json")).values()
    used |= {library: None for library in LIBRARIES if library in settings}  # of trees
    for choice in recipe.encoders:
        info = choice.info
        used |= dict.fromkeys([*(Requirement(one).name for one in info.requires), *info.libraries])
    for spec in systems:
        if not isinstance(spec, EnsembleSpec):
            used |= dict.fromkeys(name.replace("_", "-") for name in spec.packages)
    return {"python": platform.python_version(), **{name: _version(name) for name in used}}


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor())


def _changed_pairs(before: SetFacts | None, now: SetFacts | None) -> str:
    """Return in words how a set of pairs has changed; an empty text if it has not."""
    if before is None or now is None:
        return "it is not in the data any more" if now is None else "it was not in the data"
    if before.digest == now.digest:
        return ""
    old, new = Counter(before.digests), Counter(now.digests)
    gone, added = (old - new).total(), (new - old).total()
    if not gone and not added:
        return f"the same {now.n_pairs:,} pairs in another order, which other folds are made of"
    text = f"{gone:,} of {before.n_pairs:,} pairs have changed or are gone"
    return f"{text}, and {added:,} of now {now.n_pairs:,} are new or changed"


def _fingerprints(record: RunRecord) -> dict[str, str]:
    return {name: facts.fingerprint for name, facts in record.encoders.items()}


def _flat(settings: Any, name: str = "") -> dict[str, Any]:
    """Return nested settings under names with dots."""
    if not isinstance(settings, Mapping) or not settings:
        return {name: settings}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{name}.{key}" if name else str(key))
    return found


def _shown(value: object) -> str:
    return "none" if value is None else printable_name(f"{value!r:.100}")


def _interval(estimate: Estimate) -> Interval:
    return (
        finite_or_none(estimate.value),
        finite_or_none(estimate.low),
        finite_or_none(estimate.high),
    )


def _estimate(interval: Interval) -> Estimate:
    return Estimate(*(math.nan if number is None else number for number in interval))


def _distance(one: Interval, other: Interval | None) -> float:
    pairs = [*zip(one, other or (None,) * len(one), strict=True)]
    if any((a is None) != (b is None) for a, b in pairs):
        return math.inf
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)
