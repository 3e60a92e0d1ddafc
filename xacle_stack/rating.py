"""Rates text-to-audio generators: scores their clips, compares them, and writes a report.

A prompt has one clip of each generator.  The clips go through the same :class:`~xacle_stack.Scorer`
as any pairs; :mod:`xacle_stack.results.generators` compares the scores.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._files import write_atomically
from xacle_stack._types import FloatArray
from xacle_stack.errors import MissingExtraError, PairsError, bullet_list
from xacle_stack.metrics import format_number
from xacle_stack.pairs import Pairs, read_generated, read_pairs, read_prompts
from xacle_stack.pairs.generated import read_system_scores
from xacle_stack.results.generators import GeneratorComparison, compare_generators
from xacle_stack.results.page import AudioChoice, ClipEntry, Plot, Report, write_page
from xacle_stack.results.page.write import DEFAULT_MAX_CLIPS
from xacle_stack.results.plots import plot_generators, plot_human_and_predicted, svg_of
from xacle_stack.results.scored import ScoredPairs
from xacle_stack.results.text_table import TextTable
from xacle_stack.run_folder import RunFolder
from xacle_stack.scorer import Scorer
from xacle_stack.systems.label_free import CosineMean

logger = logging.getLogger(__name__)

SYSTEM, PROMPT, HUMAN = "system", "prompt_id", "human_score"


@dataclass(frozen=True, eq=False)
class Rating:
    """Generators rated; :func:`rate` makes it.

    Attributes
    ----------
    scored : ScoredPairs
        Every clip, with the columns ``system`` and ``prompt_id``.
    comparison : GeneratorComparison
    human : ndarray of shape (n_clips,), optional
        Human scores; NaN where a clip has none.
    missing : mapping of str to tuple of str
        The ids of the prompts that a generator has no clip of.
    scorer : mapping
        What scored the clips: plain JSON.
    scale : str
        A sentence that says what the scores mean.
    """

    scored: ScoredPairs
    comparison: GeneratorComparison
    human: FloatArray | None
    missing: Mapping[str, tuple[str, ...]]
    scorer: Mapping[str, Any]
    scale: str

    def sentences(self) -> list[str]:
        """Return what a reader should know beside the tables, a sentence or two each."""
        return [self.scale, *self.comparison.sentences()]

    def tables(self) -> list[TextTable]:
        """Return the tables that a terminal and the page show."""
        texts = dict(zip(map(str, self.pairs.columns[PROMPT]), self.pairs.captions, strict=True))
        return self.comparison.tables(texts)

    def summary(self) -> dict[str, Any]:
        """Return all figures as plain JSON."""
        return {
            **self.comparison.as_dict(),
            "missing": {name: list(ids) for name, ids in self.missing.items()},
            "scorer": dict(self.scorer),
            "notes": self.sentences(),
            "version": version("xacle-stack"),
        }

    def report(self) -> Report:
        """Return what the page shows."""
        scored, pairs = self.scored, self.pairs
        numbers = {"low": scored.low, "high": scored.high, "novelty": scored.novelty}
        numbers["human"] = self.human
        own = (SYSTEM, PROMPT, HUMAN)
        others = {name: column for name, column in pairs.columns.items() if name not in own}
        spreads = {prompt.prompt: prompt.spread for prompt in self.comparison.prompts}
        clips = [
            ClipEntry(
                str(pairs.columns[PROMPT][row]),
                pairs.captions[row],
                str(pairs.columns[SYSTEM][row]),
                pairs.audio[row],
                float(scored.scores[row]),
                **{name: _known(values, row) for name, values in numbers.items()},
                columns={
                    **{name: column[row] for name, column in others.items()},
                    **{name: format_number(values[row]) for name, values in scored.parts.items()},
                },
                dispute=spreads.get(pairs.columns[PROMPT][row]) if self.human is None else None,
            )
            for row in range(len(pairs))
        ]
        among = "how far the generators' scores for the prompt are apart"
        return Report(
            "Generators compared",
            self.sentences(),
            self.tables(),
            self._plots(),
            clips,
            confidence=scored.confidence,
            dispute=among if self.human is None else Report.dispute,
        )

    def save(
        self,
        out: Path | str,
        *,
        audio: AudioChoice = "copy",
        max_clips: int | None = DEFAULT_MAX_CLIPS,
    ) -> Path:
        """Write the page, ``scores.csv`` and ``summary.json`` into a folder.

        What an earlier report left there is replaced in one step; other files stay.

        Parameters
        ----------
        out : path-like
        audio, max_clips
            See :func:`~xacle_stack.results.page.write_page`.

        Returns
        -------
        page : Path
            ``out/index.html``.

        Raises
        ------
        ModelFileError
            If the folder cannot be written, or holds clips that were rated.
        """
        out = Path(out)
        with RunFolder(out, *self._clip_folders()) as run:
            write_page(self.report(), run.draft, audio=audio, max_clips=max_clips, opened_in=out)
            write_atomically(run.draft / "scores.csv", self.scored.to_csv().encode())
            text = json.dumps(self.summary(), indent=2, ensure_ascii=False)
            write_atomically(run.draft / "summary.json", f"{text}\n".encode())
            run.publish()
        return out / "index.html"

    @property
    def pairs(self) -> Pairs:
        """The clips that were rated."""
        if self.scored.pairs is None:
            raise PairsError("this Rating has scores without their pairs; rate() makes whole ones.")
        return self.scored.pairs

    def _clip_folders(self) -> list[Path]:
        return [*dict.fromkeys(clip.parent for clip in self.pairs.audio if isinstance(clip, Path))]

    def _plots(self) -> list[Plot]:
        try:
            plots = [
                Plot(
                    "The mean score of every generator, with its interval",
                    svg_of(plot_generators(self.comparison)),
                )
            ]
            if self.human is not None and not np.isnan(self.human).all():
                rated = ~np.isnan(self.human)
                ax = plot_human_and_predicted(self.human[rated], self.scored.scores[rated])
                plots.append(Plot("Human and predicted scores", svg_of(ax)))
        except MissingExtraError as error:
            logger.warning("No plots on the page: %s", error)
            return []
        return plots


def rate(
    prompts: Any,
    generators: Mapping[str, Path | str] | Sequence[Path | str] = (),
    scorer: Scorer | None = None,
    *,
    ratings: Any = None,
    below: float = 5.0,
    interval: float = 0.9,
    confidence: float = 0.95,
    n_bootstrap: int = 10_000,
    random_state: int = 0,
    text_column: str | None = None,
) -> Rating:
    """Score the clips of generators and compare the generators.

    Parameters
    ----------
    prompts : path-like, frame, Dataset or list of dict
        With `generators`: a table of prompts, with the columns ``id`` and ``prompt``.  Without: a
        table of clips and texts with a column ``system`` that names the generator of each clip.
    generators : mapping of str to path-like, or sequence of path-like
        A folder for each generator, with a file ``ID.wav`` (or another audio format) for each
        prompt.  Without names they are called like their folders.
    scorer : Scorer, optional
        By default ``Scorer.label_free("mini")``.  A label-free scorer that is not fitted takes the
        scale from the clips that it scores.
    ratings : path-like, frame, Dataset or list of dict, optional
        Human scores, where there are some: a table with the columns ``id``, ``system`` and
        ``score``; several rows of a clip count as their mean.
    below : float, default=5.0
        The share of clips with a lower score is reported.
    interval : float, default=0.9
        How sure the interval of each clip's score shall be, where the scorer has intervals.
    confidence, n_bootstrap, random_state
        See :func:`~xacle_stack.results.generators.compare_generators`.
    text_column : str, optional
        The column of the prompts, where its name does not tell.

    Returns
    -------
    rating : Rating

    Raises
    ------
    PairsError
        If the prompts, a folder or the ratings cannot be used; every mistake is named.

    Examples
    --------
    >>> rating = rate("prompts.csv", ["gen_A", "gen_B"])  # doctest: +SKIP
    >>> rating.save("report")  # doctest: +SKIP
    """
    pairs, missing = _gathered(prompts, generators, text_column)
    human = _human_scores(pairs, ratings)
    if human is not None and pairs.scores is None:
        known = tuple(None if np.isnan(score) else score for score in human.tolist())
        pairs = replace(pairs, columns={**pairs.columns, HUMAN: known})
    scorer = Scorer.label_free() if scorer is None else scorer
    is_relative = not scorer.can_score
    if is_relative:
        scorer.fit(pairs)
    scored = scorer.assess(pairs, interval=interval if scorer.has_intervals else None)
    comparison = compare_generators(
        pairs.columns[SYSTEM],
        pairs.columns[PROMPT],
        scored.scores,
        human=human,
        all_prompts=[prompt for ids in missing.values() for prompt in ids],
        below=below,
        confidence=confidence,
        n_bootstrap=n_bootstrap,
        random_state=random_state,
    )
    return Rating(scored, comparison, human, missing, _facts(scorer), _scale(scorer, is_relative))


def _facts(scorer: Scorer) -> dict[str, Any]:
    """Return what scored the clips, so that others can compute the same figures."""
    return {
        "recipe": scorer.recipe.name,
        "regressor": type(scorer.regressor_).__name__,
        "checkpoints": {
            choice.info.name: choice.checkpoint_name for choice in scorer.recipe.encoders
        },
        "fingerprints": dict(scorer.fingerprints_),
    }


def _scale(scorer: Scorer, is_relative: bool) -> str:
    names = ", ".join(choice.info.name for choice in scorer.recipe.encoders)
    if not isinstance(scorer.regressor_, CosineMean):
        return f"The scores predict what listeners would say (0-10), by a model on {names}."
    source = (
        "the clips of this report, so they compare only within it"
        if is_relative
        else ("a reference of other pairs")
    )
    return (
        f"The scores are cosines of {names} without any ratings: 0 is the mean of mismatched clips "
        f"and texts, 10 what the best matching twentieth reaches. The scale comes from {source}. "
        "They do not predict what listeners would say."
    )


def _known(values: FloatArray | None, row: int) -> float | None:
    return None if values is None or np.isnan(values[row]) else float(values[row])


def _gathered(
    prompts: Any,
    generators: Mapping[str, Path | str] | Sequence[Path | str],
    text_column: str | None,
) -> tuple[Pairs, dict[str, tuple[str, ...]]]:
    """Return the clips of all generators, and the prompts that each has no clip of."""
    if not generators:
        try:
            return _of_table(read_pairs(prompts, text_column=text_column))
        except PairsError as error:
            raise PairsError(
                f"{error}\n(A table of prompts needs the folder of each generator beside it.)"
            ) from None
    folders = _named(generators)
    known = read_prompts(prompts, text_column=text_column)
    parts, missing, mistakes = [], {}, []
    for name, folder in folders.items():
        try:
            found = read_generated(known, folder)
        except PairsError as error:
            mistakes.append(str(error))
            continue
        missing[name] = found.missing
        parts.append(_of_generator(name, found.pairs))
    if mistakes:
        raise PairsError("\n".join(mistakes))
    return _joined(parts), missing


def _named(folders: Mapping[str, Path | str] | Sequence[Path | str]) -> dict[str, Path]:
    if isinstance(folders, Mapping):
        return {name: Path(folder) for name, folder in folders.items()}
    paths = [Path(folder) for folder in folders]
    names = [path.resolve().name for path in paths]
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise PairsError(
            f"folders of generators with one name:\n{bullet_list(twice)}\nA generator is called "
            "like its folder: rename one, or give rate() a mapping of names to folders."
        )
    return dict(zip(names, paths, strict=True))


def _of_generator(name: str, pairs: Pairs) -> Pairs:
    n_pairs = len(pairs)
    taken = [column for column in (SYSTEM, PROMPT) if column in pairs.columns]
    if taken:
        raise PairsError(
            f"the prompts have a column {taken[0]!r}, which is this comparison's own: it says "
            "whose clip it is. Rename it."
        )
    return Pairs(
        name,
        tuple(f"{name}/{pair_id}" for pair_id in pairs.ids),
        pairs.audio,
        pairs.captions,
        columns={SYSTEM: (name,) * n_pairs, PROMPT: pairs.ids, **pairs.columns},
    )


def _joined(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(
        "generators",
        tuple(pair_id for part in parts for pair_id in part.ids),
        tuple(clip for part in parts for clip in part.audio),
        tuple(caption for part in parts for caption in part.captions),
        columns={
            name: tuple(value for part in parts for value in part.columns[name])
            for name in parts[0].columns
        },
    )


def _of_table(pairs: Pairs) -> tuple[Pairs, dict[str, tuple[str, ...]]]:
    """Return a table's pairs with its prompts; equal texts are one prompt, unless ids say more."""
    if SYSTEM not in pairs.columns:
        raise PairsError(
            f"{pairs.split}: there is no column 'system', which says whose clip it is. Add it, or "
            "give the folder of each generator."
        )
    systems = tuple(map(str, pairs.columns[SYSTEM]))
    prompts = tuple(map(str, pairs.columns.get(PROMPT, pairs.captions)))
    there = set(zip(systems, prompts, strict=True))
    missing = {
        system: tuple(p for p in dict.fromkeys(prompts) if (system, p) not in there)
        for system in dict.fromkeys(systems)
    }
    columns = {**pairs.columns, SYSTEM: systems, PROMPT: prompts}
    fields = (pairs.split, pairs.ids, pairs.audio, pairs.captions, pairs.scores, pairs.ratings)
    return Pairs(*fields, columns=columns), missing


def _human_scores(pairs: Pairs, ratings: Any) -> FloatArray | None:
    if ratings is None:
        return pairs.scores
    known = read_system_scores(ratings)
    keys = list(zip(pairs.columns[SYSTEM], pairs.columns[PROMPT], strict=True))
    strangers = [
        f"{prompt!r} of {system!r}" for system, prompt in known if (system, prompt) not in {*keys}
    ]
    if strangers:
        raise PairsError(
            f"{len(strangers)} rating(s) of clips that are not there:\n{bullet_list(strangers)}\n"
            "Ratings name the generator (system) and the prompt (id) of a clip."
        )
    return np.array([known.get(key, np.nan) for key in keys])
