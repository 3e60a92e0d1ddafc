"""The scorer: encoders, features and a regressor as one object that scores pairs.

A saved scorer is a model (arrays, no code) beside a card that says which encoders and features it
was fitted on, by names that this library knows.  Where weights are, what code is run and how many
views there are is never taken from the card, which may be anybody's.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path, PurePath
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from xacle_stack._types import FloatArray
from xacle_stack.audio import ClipSource
from xacle_stack.cache import CachedPairs, FeatureCache
from xacle_stack.data_facts import DataFacts
from xacle_stack.encoders import TEXT_PREFIX, LoadedEncoders
from xacle_stack.errors import (
    AudioError,
    EncoderError,
    ModelFileError,
    PairsError,
    bullet_list,
)
from xacle_stack.extract import extract_embeddings
from xacle_stack.features import FeatureBuilder, Novelty, PairEmbeddings, VectorBuilder
from xacle_stack.features.embeddings import EmbeddingSource
from xacle_stack.features.novelty import warn_of_novelty
from xacle_stack.model_file import (
    MAX_MODEL_BYTES,
    card_markdown,
    load_card,
    load_model,
    write_model,
)
from xacle_stack.pairs import Pairs
from xacle_stack.prediction import Predictor
from xacle_stack.recipe import Recipe, read_recipe, recipe_from
from xacle_stack.recipe_file import MAX_BYTES as MAX_RECIPE_BYTES
from xacle_stack.recipe_file import check_values
from xacle_stack.results.scored import ScoredPairs
from xacle_stack.stacking import Stacker
from xacle_stack.systems.specs import LabelFreeSpec
from xacle_stack.targets import fold_groups, training_targets

DEFAULT_STORE = Path("features/store")
Clip = Any  # a path, or an array or tensor of samples
# What a fitted estimator keeps as evidence, and does not score with.
_EVIDENCE = frozenset(
    {
        *("oof_predictions_", "oof_scores_", "folds_", "training_", "cv_mse_", "gain_"),
        *("validation_srcc_", "validation_loss_", "row_weights_", "y_scale_"),
        *("own_means_", "aucs_", "auc_"),
    }
)
# Settings that change no score.
_NO_FACTS = frozenset({"n_jobs", "verbose", "device"})
_VIEW = re.compile(r".+\.view-\d+")
# A recipe file may have a fourth of that; a card also holds what it leaves out.
_MAX_CARD_RECIPE_BYTES = 4 * MAX_RECIPE_BYTES


class Scorer:
    """Scores how well sounds match texts, from 0 to 10.

    Parameters
    ----------
    recipe : Recipe, str or path-like, default="mini"
        Says which encoders there are, and where their weights come from: a recipe, the name of one
        that this library brings, or a TOML file.
    regressor : regressor, optional
        Learns the scores from what the builder makes; by default the recipe's
        :class:`~xacle_stack.Stacker`.
    builder : transformer, optional
        Makes features of cached embeddings; by default the recipe's
        :class:`~xacle_stack.FeatureBuilder`.
    store : path-like, default="features/store"
        The folder in which embeddings of :class:`~xacle_stack.Pairs` are kept.
    device : str, default="auto"
        Where encoders run; see :func:`~xacle_stack.extract_embeddings`.
    n_jobs : int, optional
        Things done side by side, in joblib's convention.  Within
        ``joblib.parallel_config(backend="dask")`` a cluster encodes and scores.
    progress : bool, default=False
        Whether encoding, and scoring on a cluster, show progress bars.

    Attributes
    ----------
    builder_, regressor_ : transformer, regressor
        The fitted parts.
    fingerprints_ : dict of str to str
        What the encoders were: a scorer refuses embeddings of others.
    novelty_ : Novelty or None
        Measures how far pairs are from the training pairs.  None where nothing was learned from
        ratings, the builder makes no vectors of clips and captions, or the parts were fitted by
        themselves or by an earlier version.
    training_ : dict or None
        The size and the digest of the set of pairs that it was fitted on, for its card.

    Examples
    --------
    >>> from xacle_stack import Scorer, read_pairs
    >>> train, test = (read_pairs("data/demo", split) for split in ("train", "test"))
    ...     # doctest: +SKIP
    >>> scorer = Scorer("mini").fit(train)  # doctest: +SKIP
    >>> scorer.score(test)  # doctest: +SKIP
    >>> scorer.score_clips(["dog.wav"], ["a dog barks"])  # doctest: +SKIP
    """

    def __init__(
        self,
        recipe: Recipe | Path | str = "mini",
        regressor: Any = None,
        *,
        builder: Any = None,
        store: Path | str = DEFAULT_STORE,
        device: str = "auto",
        n_jobs: int | None = None,
        progress: bool = False,
    ) -> None:
        self.recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
        self.regressor = regressor
        self.builder = builder
        self.store = store
        self.device = device
        self.n_jobs = n_jobs
        self.progress = progress
        self.novelty_: Novelty | None = None
        self.training_: dict[str, Any] | None = None
        self._has_warned = False

    @classmethod
    def label_free(cls, recipe: Recipe | Path | str = "mini", **settings: Any) -> Self:
        """Return an unfitted scorer that needs no ratings: the mean of the spaces' cosines.

        Its `fit` takes pairs without scores, as the reference of its scale; see
        :class:`~xacle_stack.CosineMean`.

        Parameters
        ----------
        recipe : Recipe, str or path-like
            Its spaces are used.
        **settings
            The store, device, `n_jobs` and progress of the scorer.

        Returns
        -------
        scorer : Scorer

        Examples
        --------
        >>> from xacle_stack import read_pairs
        >>> train, test = (read_pairs("data/demo", split) for split in ("train", "test"))
        ...     # doctest: +SKIP
        >>> Scorer.label_free("mini").fit(train).score(test)  # doctest: +SKIP
        """
        recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
        spec, names = LabelFreeSpec(), recipe.cache_names
        regressor = spec.regressor(names, recipe.new_stacker())
        builder = spec.builder(names, recipe.builder())
        return cls(recipe.for_scoring(spec), regressor, builder=builder, **settings)

    @classmethod
    def from_fitted(cls, recipe: Recipe | Path | str, builder: Any, regressor: Any) -> Self:
        """Return a scorer made of parts that were fitted by themselves.

        Parameters
        ----------
        recipe : Recipe, str or path-like
            The one whose encoders made the embeddings that the parts were fitted on.
        builder : transformer
        regressor : regressor

        Returns
        -------
        scorer : Scorer
        """
        check_is_fitted(builder)
        check_is_fitted(regressor)
        scorer = cls(recipe, regressor, builder=builder)
        scorer.builder_, scorer.regressor_ = builder, regressor
        scorer.fingerprints_ = scorer.recipe.fingerprints()
        return scorer

    def __repr__(self) -> str:
        regressor = getattr(self, "regressor_", self.regressor)
        what = "its recipe's stacker" if regressor is None else type(regressor).__name__
        return f"Scorer({self.recipe.name!r}, {what})"

    @property
    def can_score(self) -> bool:
        """Whether it was fitted; also a network whose training the user interrupted can score."""
        regressor = getattr(self, "regressor_", None)
        if regressor is None:
            return False
        try:
            check_is_fitted(getattr(regressor, "regressor_", regressor))
        except NotFittedError:
            return False
        return not isinstance(regressor, Stacker) or hasattr(regressor, "meta_")

    @property
    def has_intervals(self) -> bool:
        """Whether it knows how far its scores are off, as a fitted stack does."""
        return self.can_score and hasattr(self.regressor_, "oof_scores_")

    @property
    def n_parameters(self) -> int:
        """How many learned numbers it needs to score.

        Of a tree these are its thresholds and leaves; of a Gaussian process its training rows too.
        """
        return _n_numbers([self.builder_, self.regressor_])

    def fit(
        self,
        pairs: Pairs | EmbeddingSource,
        y: ArrayLike | None = None,
        *,
        groups: ArrayLike | Literal["recipe"] | None = "recipe",
        sample_weight: ArrayLike | None = None,
        eval_set: tuple[Pairs | EmbeddingSource, ArrayLike | None] | None = None,
    ) -> Self:
        """Encode what the store does not hold yet, and fit the features and the regressor.

        Parameters
        ----------
        pairs : Pairs, CachedPairs or PairEmbeddings
        y : array-like of shape (n_pairs,), optional
            By default what the recipe trains with: the pairs' mean scores, or those of a listener
            model, with its weights.  A regressor that needs no scores gets none.
        groups : array-like of shape (n_pairs,), "recipe" or None, default="recipe"
            Pairs with equal labels are held out together.  "recipe" stands for the captions where
            the recipe says so, which by default is where there are enough of them.  With None every
            pair is held out by itself.
        sample_weight : array-like of shape (n_pairs,), optional
        eval_set : (pairs, y), optional
            Pairs on which a network chooses its epoch.

        Returns
        -------
        self : Scorer

        Raises
        ------
        PairsError
            If there are no scores to fit on, or a clip or caption could not be encoded.
        XacleStackError
            Whatever encoding and fitting raise.
        """
        builder = self.recipe.builder() if self.builder is None else clone(self.builder)
        if self.regressor is None:
            regressor = self.recipe.new_stacker(self.n_jobs)
        else:
            regressor = clone(self.regressor)
        embeddings = self._embeddings(pairs, for_training=True)
        known: Pairs | None = getattr(embeddings, "pairs", None)
        needs_scores = _needs_scores(regressor)
        if not needs_scores:
            y, sample_weight = None, None
        elif y is None:
            if known is None:
                raise PairsError("there are no scores to fit on: give y.")
            targets = training_targets(known, self.recipe)
            y = targets.scores
            sample_weight = targets.sample_weight if sample_weight is None else sample_weight
        given: dict[str, Any] = {}
        if sample_weight is not None:
            given["sample_weight"] = sample_weight
        if has_fit_parameter(regressor, "groups"):
            if isinstance(groups, str):
                groups = None if known is None else fold_groups(known, self.recipe, regressor)
            given["groups"] = groups
        table = builder.fit_transform(embeddings)
        if eval_set is not None:
            others, scores = eval_set
            given["eval_set"] = (builder.transform(self._embeddings(others)), scores)
        self.builder_, self.regressor_ = builder, regressor
        self.fingerprints_ = self.recipe.fingerprints()
        self.novelty_ = None
        if needs_scores and isinstance(builder, FeatureBuilder | VectorBuilder):
            outputs = [list(builder.spaces)]
            if isinstance(builder, FeatureBuilder) and not builder.spaces:
                outputs += [list(builder.auxiliary), list(builder.text_auxiliary)]
            self.novelty_ = Novelty(*outputs).fit(embeddings)
        self.training_ = None
        if isinstance(embeddings, CachedPairs):
            self.training_ = DataFacts.of(embeddings).model_dump(mode="json")
        regressor.fit(table, y, **given)  # type: ignore[arg-type]  # None where none is needed
        return self

    @overload
    def score(
        self, pairs: Pairs | EmbeddingSource, *, interval: None = None, check_novelty: bool = True
    ) -> FloatArray: ...

    @overload
    def score(
        self, pairs: Pairs | EmbeddingSource, *, interval: float, check_novelty: bool = True
    ) -> ScoredPairs: ...

    def score(
        self,
        pairs: Pairs | EmbeddingSource,
        *,
        interval: float | None = None,
        check_novelty: bool = True,
    ) -> FloatArray | ScoredPairs:
        """Return the scores of pairs; clips and captions are encoded once and kept in the store.

        Parameters
        ----------
        pairs : Pairs, CachedPairs or PairEmbeddings
        interval : float, optional
            How sure a prediction interval shall be, such as 0.9: that share of new pairs has its
            human score between `low` and `high`.
        check_novelty : bool, default=True
            Whether to log a warning if more than a tenth of the pairs, or one of fewer than ten,
            are unlike the training pairs; a scorer does so once.

        Returns
        -------
        scores : ndarray of shape (n_pairs,), or ScoredPairs
            In 0–10; each pair's score depends on that pair only, and so does its interval.  With
            `interval` it is what `assess` returns.

        Raises
        ------
        PairsError
            If a clip or caption could not be encoded.
        StackingError
            If the regressor has no intervals, or `interval` is not between 0 and 1.
        """
        if interval is not None:
            return self.assess(pairs, interval=interval, check_novelty=check_novelty)
        self._check_is_fitted()
        embeddings = self._embeddings(pairs)
        warns = check_novelty and not self._has_warned
        found = self._predict(embeddings, self.novelty_ if warns else None)
        if warns and "sides" in found:
            self._has_warned = warn_of_novelty(found["sides"], embeddings.pair_ids)
        return found["scores"]

    def assess(
        self,
        pairs: Pairs | EmbeddingSource,
        *,
        interval: float | None = None,
        check_novelty: bool = True,
    ) -> ScoredPairs:
        """Return the scores of pairs with all that is known of them.

        Parameters
        ----------
        pairs, interval, check_novelty
            As in `score`; without `interval` the record has no `low` and `high`.

        Returns
        -------
        scored : ScoredPairs
            Scores, intervals, novelty, and of a label-free scorer the cosine of each space.

        Raises
        ------
        PairsError
            If a clip or caption could not be encoded.
        StackingError
            If there shall be intervals and the scorer has none; see `has_intervals`.
        """
        self._check_is_fitted()
        embeddings = self._embeddings(pairs)
        found, known = self._predict(embeddings, self.novelty_, interval), dict[str, Any]()
        if "sides" in found:
            known["novelty"] = found["sides"].max(axis=1)
            if check_novelty and not self._has_warned:
                self._has_warned = warn_of_novelty(found["sides"], embeddings.pair_ids)
        if interval is not None:
            known.update(low=found["low"], high=found["high"], confidence=interval)
        if "cosines" in found:
            known["parts"] = {
                f"cosine of {name}": column
                for name, column in zip(
                    self.regressor_.space_names, found["cosines"].T, strict=True
                )
            }
        return ScoredPairs(
            getattr(embeddings, "pairs", None), embeddings.pair_ids, found["scores"], **known
        )

    def novelty(self, pairs: Pairs | EmbeddingSource) -> FloatArray | None:
        """Return how far pairs are from those that the scorer was fitted on.

        Parameters
        ----------
        pairs : Pairs, CachedPairs or PairEmbeddings

        Returns
        -------
        novelty : ndarray of shape (n_pairs,), or None
            0 or more; about one in a hundred pairs like those in training is above 1.  None if the
            scorer has no `novelty_`.
        """
        self._check_is_fitted()
        return None if self.novelty_ is None else self.novelty_.measure(self._embeddings(pairs))

    @overload
    def score_clips(
        self,
        audio: Clip | Sequence[Clip],
        texts: str | Sequence[str],
        *,
        sample_rate_hz: int | Sequence[int | None] | None = None,
        interval: None = None,
    ) -> FloatArray: ...

    @overload
    def score_clips(
        self,
        audio: Clip | Sequence[Clip],
        texts: str | Sequence[str],
        *,
        sample_rate_hz: int | Sequence[int | None] | None = None,
        interval: float,
    ) -> ScoredPairs: ...

    def score_clips(
        self,
        audio: Clip | Sequence[Clip],
        texts: str | Sequence[str],
        *,
        sample_rate_hz: int | Sequence[int | None] | None = None,
        interval: float | None = None,
    ) -> FloatArray | ScoredPairs:
        """Return the scores of clips that are at hand, against texts; nothing is kept.

        The encoders are loaded at the first call and stay in memory.  The scores are those that
        `score` gives for files of the same samples.  Several threads may call it at once: they
        share the encoders, which run in one thread at a time.  A forked process may call it, too,
        on the CPU.

        Parameters
        ----------
        audio : path-like, array or tensor of samples, or sequence of them
            Samples are mono, or have one axis of channels; floats in [-1, 1] or PCM integers, on
            any device.  An array whose first axis has one row for each of several texts is a batch
            of clips of equal length.
        texts : str or sequence of str
            One for each clip, or one for all of them.
        sample_rate_hz : int or sequence of int, optional
            The rate of the arrays: one for all, or one for each clip (None for a path).
        interval : float, optional
            As in `score`.

        Returns
        -------
        scores : ndarray of shape (n_clips,), or ScoredPairs
            In 0-10; with `interval` a record of scores and intervals.

        Raises
        ------
        PairsError
            If there is another number of texts than of clips, or a text is blank.
        AudioError
            If a clip cannot be decoded, or an array has no usable samples or no rate.

        Examples
        --------
        >>> scorer.score_clips(waveform, "a dog barks", sample_rate_hz=48_000)  # doctest: +SKIP
        """
        self._check_is_fitted()
        clips = _listed_clips(audio, texts)
        captions = [texts] * len(clips) if isinstance(texts, str) else list(texts)
        if not clips or len(captions) != len(clips):
            raise PairsError(
                f"clips: {len(clips)}, texts: {len(captions)}. Give one clip or more, and one text "
                "for all of them or one for each, in the same order."
            )
        encoders = self._loaded_encoders()
        heard = encoders.encode_clips(clips, sample_rate_hz=sample_rate_hz)
        written = encoders.encode_captions(captions)
        embeddings = PairEmbeddings.from_outputs(heard, written, captions)
        return self.score(embeddings, interval=interval)

    def save(
        self,
        path: Path | str,
        *,
        card: Mapping[str, Any] | None = None,
        trusted: Iterable[str | type] = (),
    ) -> Path:
        """Save the fitted scorer: ``NAME.skops``, its card, and any large arrays.

        The card is ``NAME.json`` for programs, and ``NAME.md`` to read: what the model was made
        of, what it is good for, and how it is loaded.

        Parameters
        ----------
        path : path-like
            ``NAME.skops``, or a folder for ``model.skops`` in it.  Large arrays are written to
            ``NAME.safetensors``.
        card : mapping, optional
            Further facts to keep: plain JSON.
        trusted : iterable of str or type, optional
            See :func:`~xacle_stack.save_model`.

        Returns
        -------
        path : Path

        Raises
        ------
        ModelFileError
            If a part could not be loaded again, or the files cannot be written.
        """
        self._check_is_fitted()
        regressor = self.regressor_
        facts = {
            "training": self.training_,
            **(card or {}),
            "recipe": self.recipe.model_dump(mode="json"),
            "fingerprints": self.fingerprints_,
            "encoders": {
                choice.info.name: {
                    "licence": choice.info.licence,
                    "window_s": choice.info.window_s,
                }
                for choice in self.recipe.encoders
            },
            "regressor": {"type": type(regressor).__name__, "settings": _plain_settings(regressor)},
            "has_intervals": self.has_intervals,
            "has_novelty": self.novelty_ is not None,
        }
        parts = {"builder": self.builder_, "regressor": self.regressor_}
        if self.novelty_ is not None:
            parts["novelty"] = self.novelty_
        return write_model(path, parts, facts, trusted=trusted, describe=card_markdown)

    @classmethod
    def load(
        cls,
        path: Path | str,
        recipe: Recipe | Path | str | None = None,
        *,
        checkpoints: Mapping[str, str] | None = None,
        code: Mapping[str, str] | None = None,
        trusted: Iterable[str | type] = (),
        max_bytes: int = MAX_MODEL_BYTES,
        **settings: Any,
    ) -> Self:
        """Load what `save` or a run of ``xacle-stack`` wrote.

        Parameters
        ----------
        path : path-like
            ``NAME.skops``, or the folder of ``model.skops``.
        recipe : Recipe, str or path-like, optional
            Needed where an encoder is a Python file: the card's word is not enough to run one.
        checkpoints, code : mapping of str to str, optional
            Where they are on this machine, if not where the recipe or the encoder's default says.
        trusted, max_bytes
            See :func:`~xacle_stack.load_model`.
        **settings
            The store, device, `n_jobs` and progress of the scorer.

        Returns
        -------
        scorer : Scorer

        Raises
        ------
        ModelFileError
            If the file cannot be trusted or read, or its encoders are not those of this
            installation.
        RecipeError, UnknownNameError
            If the card's recipe has a mistake, or names an encoder that does not exist.
        EncoderError
            If an encoder's weights are not there.
        """
        card = load_card(path)
        (fitted_on, named), training = _facts(path, card), card.get("training")
        parts = _parts(path, load_model(path, trusted=trusted, max_bytes=max_bytes), trusted)
        if recipe is None:
            chosen = _recipe_of_card(path, named)
        else:
            chosen = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
        chosen = chosen.override(checkpoints=checkpoints, code=code)
        hint = _checkpoints_of_card(named)
        try:
            installed = chosen.fingerprints()
        except EncoderError as error:
            raise EncoderError(f"{error}{hint}") from None
        _check_fingerprints(path, fitted_on, installed, hint)
        scorer = cls(chosen, parts["regressor"], builder=parts["builder"], **settings)
        scorer.builder_, scorer.regressor_ = parts["builder"], parts["regressor"]
        scorer.novelty_ = parts.get("novelty")
        scorer.fingerprints_ = installed
        scorer.training_ = training if isinstance(training, dict) else None
        return scorer

    def _predict(
        self,
        embeddings: EmbeddingSource,
        novelty: Novelty | None = None,
        interval: float | None = None,
    ) -> dict[str, FloatArray]:
        predictor = Predictor(self.builder_, self.regressor_, novelty, interval)
        return predictor.predict(embeddings, self.n_jobs, progress=self.progress)

    def _check_is_fitted(self) -> None:
        if not self.can_score:
            raise NotFittedError("this Scorer is not fitted: call fit, or Scorer.load.")

    def _loaded_encoders(self) -> LoadedEncoders:
        if (loaded := vars(self).get("_encoders")) is None:
            # Of what several threads make here at once one is kept; they load nothing before.
            loaded = LoadedEncoders(self.recipe.encoders, device=self.device)
            loaded = vars(self).setdefault("_encoders", loaded)
        return loaded

    def embeddings(self, pairs: Pairs, *, for_training: bool = False) -> CachedPairs:
        """Return the embeddings of pairs; what the store does not hold yet is encoded.

        Parameters
        ----------
        pairs : Pairs
        for_training : bool, default=False
            Whether augmented views are needed, too.

        Returns
        -------
        embeddings : CachedPairs

        Raises
        ------
        PairsError
            If a clip or caption could not be encoded.
        """
        recipe = self.recipe
        wanted = [*recipe.encoders, *(recipe.view_encoders if for_training else ())]
        report = extract_embeddings(
            [pairs],
            wanted,
            self.store,
            device=self.device,
            n_jobs=self.n_jobs,
            progress=self.progress,
        )
        if report.failures:
            raise PairsError(
                f"{len(report.failures)} clip(s) or caption(s) could not be used; all others are "
                f"in the store {self.store}:\n{bullet_list(report.failures.values())}"
            )
        return FeatureCache(self.store).load(pairs, recipe.fingerprints())

    def _embeddings(
        self, pairs: Pairs | EmbeddingSource, *, for_training: bool = False
    ) -> EmbeddingSource:
        if isinstance(pairs, Pairs):
            return self.embeddings(pairs, for_training=for_training)
        if not hasattr(pairs, "pair_ids"):
            raise PairsError(
                f"expected Pairs or embeddings, got a {type(pairs).__name__}. Read a table, a "
                "frame or a list of dicts with read_pairs(...) first."
            )
        return pairs


def _listed_clips(audio: Any, texts: str | Sequence[str]) -> list[Any]:
    """Return clips as a list: a path or the samples of one clip are one clip."""
    if isinstance(audio, str | PathLike | ClipSource):
        return [audio]
    shape = tuple(getattr(audio, "shape", ()))
    holds_paths = getattr(getattr(audio, "dtype", None), "kind", "") in ("O", "U", "S")
    if len(shape) > 1 and not isinstance(texts, str) and shape[0] == len(texts) > 1:
        return list(audio)
    if len(shape) > 1 and not (len(shape) == 2 and (shape[0] == 1 or shape[0] > shape[1])):
        raise AudioError(
            f"audio: an array of shape {shape} may be one clip with channels or several clips. "
            "Write [audio] for one clip of shape (n_channels, n_samples), list(audio) for several."
        )
    if shape and holds_paths:
        return audio.tolist()
    return [audio] if shape else list(audio)


def _needs_scores(regressor: Any) -> bool:
    """Return what a regressor's tags say; whoever has none needs scores."""
    tags = getattr(regressor, "__sklearn_tags__", None)
    return tags is None or bool(tags().target_tags.required)


def _n_numbers(model: Any) -> int:
    """Return how many learned numbers an estimator, or several, hold to score with."""
    if isinstance(model, np.ndarray):
        return int(model.size) if model.dtype.kind == "f" else 0
    if isinstance(model, float):
        return 1
    if isinstance(model, Mapping | list | tuple):
        return sum(map(_n_numbers, model.values() if isinstance(model, Mapping) else model))
    if type(model).__module__.partition(".")[0] not in {"xacle_stack", "sklearn"}:
        return 0
    settings = model.get_params(deep=False) if hasattr(model, "get_params") else {}
    unused = _EVIDENCE | settings.keys()
    return _n_numbers([value for name, value in vars(model).items() if name not in unused])


def _plain_settings(estimator: Any) -> dict[str, Any]:
    """Return an estimator's settings that are not the default, as a card holds them.

    Of a file or a folder that is the name only: a card holds no places.
    """
    defaults = inspect.signature(type(estimator)).parameters
    settings = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}
    return {
        name: PurePath(value).name if isinstance(value, str) else value
        for name, value in settings.items()
        if name not in _NO_FACTS
        and isinstance(value, str | bool | int | float)
        and (isinstance(value, str) or math.isfinite(value))
        and (name not in defaults or value != defaults[name].default)
    }


def _facts(path: Path | str, card: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fingerprints and the recipe's settings that a card holds."""
    fingerprints, settings = card.get("fingerprints"), card.get("recipe")
    if not isinstance(settings, dict) or not isinstance(fingerprints, dict):
        raise ModelFileError(
            f"{path}: its card has no recipe and fingerprints, so nobody knows which embeddings it "
            "scores. If it is yours, load its parts with load_model and save them again with "
            "Scorer.from_fitted(recipe, builder, regressor).save(path); else use one that "
            "Scorer.save or `xacle-stack stack` wrote."
        )
    n_bytes = len(json.dumps(settings))
    if n_bytes > _MAX_CARD_RECIPE_BYTES:
        raise ModelFileError(
            f"{path}: the recipe in its card has {n_bytes:,} bytes, expected "
            f"{_MAX_CARD_RECIPE_BYTES:,} or fewer. Use a model that `xacle-stack stack` wrote."
        )
    return fingerprints, settings


def _parts(path: Path | str, model: Any, trusted: Iterable[str | type]) -> dict[str, Any]:
    """Return a loaded model's builder and regressor, once they are what a scorer is made of."""
    expected = {
        "builder": ("transform", ("xacle_stack.features.",)),
        "regressor": ("predict", ("xacle_stack.", "sklearn.")),
    }
    if not isinstance(model, dict) or expected.keys() - model.keys():
        raise ModelFileError(
            f"{path}: this model is no builder and regressor, so it cannot score audio. Use one "
            "that Scorer.save or `xacle-stack stack` wrote."
        )
    for part, (method, homes) in expected.items():
        is_known = f"{type(model[part]).__module__}.".startswith(homes)
        if not (is_known or trusted) or not callable(getattr(model[part], method, None)):
            raise ModelFileError(
                f"{path}: its {part} is a {type(model[part]).__name__}, which has no place in a "
                "scorer. Use a model that Scorer.save or `xacle-stack stack` wrote."
            )
    if not isinstance(model.get("novelty"), Novelty | None):
        raise ModelFileError(
            f"{path}: its novelty is a {type(model['novelty']).__name__}, which has no place in a "
            "scorer. Use a model that Scorer.save or `xacle-stack stack` wrote."
        )
    return model


def _recipe_of_card(path: Path | str, settings: Mapping[str, Any]) -> Recipe:
    text = json.dumps(settings)
    for sign, kind, use in (
        (".py:", "an encoder from a Python file", "run"),
        (f'"{TEXT_PREFIX}', "a sentence encoder of a hub id or a folder", "looked for"),
    ):
        if sign in text:
            raise ModelFileError(
                f"{path}: it was fitted with {kind}, which is not {use} on a saved model's word. "
                "If you trust it, name the recipe that names it: Scorer.load(path, recipe=...), or "
                "--recipe on the command line."
            )
    own = {**settings, "checkpoints": {}, "code": {}, "views": {}}  # the user's to say
    check_values(own, f"{path}, its card")
    return recipe_from(own, source=f"{path}, its card")


def _check_fingerprints(
    path: Path | str, fitted: Mapping[str, object], installed: Mapping[str, str], hint: str
) -> None:
    # A recipe may name more encoders than one of its systems was fitted on; views are of training.
    names = [name for name in fitted if not _VIEW.fullmatch(name)] or list(installed)
    changed = [name for name in names if fitted.get(name) != installed.get(name)]
    if changed:
        shown = ", ".join(name if name in installed else repr(name[:80]) for name in changed[:20])
        name = changed[0][:80] if changed[0] in installed else "NAME"
        raise ModelFileError(
            f"{path}: it was fitted on other embeddings than this installation makes, for: "
            f"{shown}. Name the checkpoint that it was fitted with, --checkpoint {name}=PLACE or "
            f"Scorer.load(path, checkpoints={{{name!r}: PLACE}}), and use the same library "
            "versions (see the card), or fit it again with: xacle-stack stack."
            f"{hint}"
        )


def _checkpoints_of_card(settings: Mapping[str, object]) -> str:
    """Return what a card says of checkpoints, as a hint: it may be anybody's, and is not obeyed."""
    places = settings.get("checkpoints")
    if not isinstance(places, dict) or not places:
        return ""
    named = ", ".join(
        f"{str(name)[:80]!r} with {str(place)[:200]!r}" for name, place in [*places.items()][:20]
    )
    return f" According to its card, which nobody has checked, it was fitted: {named}."
