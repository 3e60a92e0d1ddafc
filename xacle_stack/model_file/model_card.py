"""The card of a saved model in sentences and tables: for ``NAME.md``, a terminal and the page.

All of it comes from the JSON card, which may be anybody's: whatever is not as expected is shown as
it is or left out.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xacle_stack._files import is_regular_file, write_atomically
from xacle_stack._printable import printable_name
from xacle_stack.metrics import METRICS, Estimate
from xacle_stack.model_file.card import load_card, model_path
from xacle_stack.results.record import CROSS_VALIDATION
from xacle_stack.results.text_section import TextSection
from xacle_stack.results.text_table import markdown_text

# The first line tells a card from a file of the user's that is called alike.
_MARK = "<!-- Written by xacle-stack beside a model, and replaced with it. -->"
# What the sections show, or what only the program needs; all else is shown as further facts.
_KNOWN = frozenset(
    {
        *("system", "recipe", "fingerprints", "encoders", "training", "regressor", "metrics"),
        *("evaluations", "has_intervals", "has_novelty", "families", "oof_srcc"),
        *("data", "data_name", "format_version", "model_digest", "tensors_digest", "python"),
        "libraries",
    }
)
_VIEW = re.compile(r".+\.view-\d+")
_MAX_CHARS, _MAX_ROWS = 200, 100
_MAX_NUMBER = 1e15
_SCORER = "A model of xacle_stack. It scores how well a sound matches a text, from 0 to 10."
_CAPTIONER = "A model of xacle_stack. It writes captions of sounds."
# Encoders that are not run, or looked for, on a card's word.
_NAMED_BY_RECIPE = re.compile(r"\.py:|^text:")


def card_markdown(card: Mapping[str, Any], path: Path | str) -> str:
    """Return a model's card as a page in Markdown.

    Parameters
    ----------
    card : mapping
        What :func:`~xacle_stack.load_card` returns.
    path : path-like
        The model's file.

    Returns
    -------
    text : str
        Nothing of the card is markup.
    """
    title = f"# {markdown_text(_text(card.get('system') or Path(path).stem))}"
    sections = (section.to_markdown() for section in card_sections(card, path))
    what = _CAPTIONER if _is_captioner(card) else _SCORER
    return "\n\n".join([_MARK, title, what, *sections]) + "\n"


def card_sections(card: Mapping[str, Any], path: Path | str) -> list[TextSection]:
    """Return a model's card in sections; see :func:`card_markdown`."""
    found = [
        _training(card),
        _encoders(card),
        _system(card),
        _figures(card),
        _limits(card),
        _use(card, path),
        _versions(card),
    ]
    further = [(_text(key), _text(value)) for key, value in card.items() if key not in _KNOWN]
    if further:
        found.append(TextSection("Further facts", [], ("fact", "value"), further[:_MAX_ROWS]))
    return found


def write_markdown(model: Path | str) -> None:
    """Write the Markdown beside a saved model anew, such as that of a copy under another name."""
    path = model_path(model)
    write_atomically(path.with_suffix(".md"), card_markdown(load_card(path), path).encode())


def is_markdown_card(path: Path) -> bool:
    """Return whether a file is the Markdown of a model's card; also of one that is not there."""
    try:
        if not is_regular_file(path):
            return False
        with path.open("rb") as file:
            return file.read(len(_MARK)) == _MARK.encode()
    except FileNotFoundError:
        return True


def _training(card: Mapping[str, Any]) -> TextSection:
    facts = _mapping(card, "training")
    rows = [
        ("data set", _text(card.get("data_name"))),
        ("set", _text(facts.get("split"))),
        ("pairs", _text(facts.get("n_pairs"))),
        ("different clips", _text(facts.get("n_clips"))),
        ("different captions", _text(facts.get("n_captions"))),
        ("human scores", _range(facts.get("score_range"))),
        ("digest of the content", _text(facts.get("digest"))),
    ]
    if not facts:
        return TextSection("Training data", ["It is not recorded what the model was fitted on."])
    return TextSection("Training data", [], ("fact", "value"), rows)


def _encoders(card: Mapping[str, Any]) -> TextSection:
    known, rows = _mapping(card, "encoders"), []
    for name, fingerprint in _mapping(card, "fingerprints").items():
        if not _VIEW.fullmatch(name):
            facts = _mapping(known, name)
            window = facts.get("window_s")
            heard = "any length" if window is None else f"windows of {_text(window)} s"
            rows.append(
                (
                    name,
                    _text(facts.get("licence")),
                    heard if facts else "unknown",
                    _text(fingerprint),
                )
            )
    header = ("encoder", "licence of its weights", "hears", "fingerprint")
    sentences = [
        "They are frozen. The model scores only what the encoders with these fingerprints make."
    ]
    return TextSection("Encoders", sentences, header, rows[:_MAX_ROWS])


def _system(card: Mapping[str, Any]) -> TextSection:
    recipe, regressor = _mapping(card, "recipe"), _mapping(card, "regressor")
    rows = [("recipe", _text(recipe.get("name"))), ("regressor", _text(regressor.get("type")))]
    if "precision" in recipe:
        rows.append(("precision", _text(recipe["precision"])))
    if "listener_model" in recipe:
        rows.append(("listener_model", _text(recipe["listener_model"] or False)))
    for name in ("features", "stacker"):
        rows += [(f"{name}.{key}", _text(value)) for key, value in _mapping(recipe, name).items()]
    rows += [(key, _text(value)) for key, value in _mapping(regressor, "settings").items()]
    sentences = ["Settings that are not listed have their defaults."]
    return TextSection("System", sentences, ("setting", "value"), rows[:_MAX_ROWS])


def _figures(card: Mapping[str, Any]) -> TextSection:
    metrics, basis = _mapping(card, "metrics"), _mapping(card, "evaluations")
    rows, sentences = [], []
    for split in metrics:
        figures, how = _mapping(metrics, split), _mapping(basis, split)
        if figures:
            cells = [_estimate(figures.get(name)) for name in METRICS]
            rows.append(
                (_text(split), *cells, _text(how.get("n_pairs")), _text(how.get("n_seeds")))
            )
            if how.get("chose_epoch_here") is True:
                sentences.append(
                    f"On {_text(split)} it chose its epoch, so its figures there do not hold for "
                    "unseen pairs."
                )
    if not rows:
        return TextSection("Figures", ["Not evaluated when it was saved."])
    if CROSS_VALIDATION in metrics:
        sentences.append(
            "The figures of the cross-validation are those of fits without the pairs' fold; the "
            "model itself is fitted on all pairs."
        )
    sentences.append(
        "In brackets: bootstrap intervals. Figures of several seeds are means; the model is the "
        "first fit."
    )
    return TextSection("Figures", sentences, ("set", *METRICS, "pairs", "seeds"), rows[:_MAX_ROWS])


def _limits(card: Mapping[str, Any]) -> TextSection:
    return TextSection("Limits", [*_limit_sentences(card)])


def _limit_sentences(card: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "Scores are comparable within this model only: a 7 of another model need not mean the same."
    )
    yield (
        "Figures hold for pairs like those of the sets above. Nobody has checked other sounds, "
        "other kinds of texts, or languages that are not in the training data."
    )
    if card.get("has_novelty") is True:
        yield (
            "Scorer.assess and the table of xacle-stack score tell how far a pair is from the "
            "training pairs. With a novelty above 1 it is more unlike them than 99 in 100 of their "
            "own kind, and its score is a guess."
        )
    else:
        yield "The model cannot tell whether a pair is unlike those that it was fitted on."
    if card.get("has_intervals") is True:
        yield "Intervals of single scores hold for pairs like those in training."
    encoders = _mapping(card, "encoders")
    if any(_mapping(encoders, name).get("window_s") is not None for name in encoders):
        yield (
            "A clip that is longer than an encoder's window is heard in windows of equal length, "
            "whose vectors are averaged: a short event in a long clip counts little."
        )


def _use(card: Mapping[str, Any], path: Path | str) -> TextSection:
    sentences = ["In the folder of the model:"]
    recipe = _mapping(card, "recipe")
    named = [name for key in ("spaces", "auxiliary") for name in _listed(recipe.get(key))]
    settings = ""
    if any(_NAMED_BY_RECIPE.search(str(name)) for name in named):
        sentences.insert(0, "An encoder of its own is found only by the recipe that names it.")
        settings = ', recipe="my_recipe.toml"'
    load = f"scorer = Scorer.load({Path(path).name!a}{settings})"
    if _is_captioner(card):
        code = (
            f"from xacle_stack import Scorer, read_pairs, write_captions\n\n{load}\n"
            'print(write_captions(scorer, read_pairs("clips.csv")))'
        )
    else:
        code = (
            f"from xacle_stack import Scorer\n\n{load}\n"
            'print(scorer.score_clips("clip.wav", "a dog barks"))'
        )
    return TextSection("Use", sentences, code=code)


def _versions(card: Mapping[str, Any]) -> TextSection:
    rows = [("python", _text(card.get("python")))]
    rows += [(_text(key), _text(value)) for key, value in _mapping(card, "libraries").items()]
    rows.append(("format of the file", _text(card.get("format_version"))))
    rows.append(("digest of the file", _text(card.get("model_digest"))))
    return TextSection("Versions", [], ("what", "version"), rows[:_MAX_ROWS])


def _is_captioner(card: Mapping[str, Any]) -> bool:
    return _mapping(card, "regressor").get("type") == "AudioCaptioner"


def _mapping(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return what should be a mapping of texts; an empty one if it is none."""
    value = facts.get(key)
    return value if isinstance(value, Mapping) else {}


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _text(value: object) -> str:
    """Return a value of a card in one short line."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_number(value):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return printable_name(value if isinstance(value, str) else reprlib.repr(value))[:_MAX_CHARS]


def _range(value: object) -> str:
    ends = _listed(value)
    if len(ends) != 2 or not all(map(_is_number, ends)):
        return "none" if value is None else _text(value)
    return f"from {_text(ends[0])} to {_text(ends[1])}"


def _estimate(value: object) -> str:
    """Return a metric with its interval, ``[value, low, high]`` in a card."""
    numbers: list[Any] = [math.nan if number is None else number for number in _listed(value)]
    if len(numbers) != 3 or not all(map(_is_number, numbers)):
        return _text(value)
    return str(Estimate(*numbers))


def _is_number(value: object) -> bool:
    """Return whether a value is a number that can be shown; JSON has huge ones, too."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and not abs(value) > _MAX_NUMBER
    )
