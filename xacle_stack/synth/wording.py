"""Writes captions for stories of sound events with a small grammar.

A hash of its words assigns every caption to one of two halves.  Fitting draws captions from one
half and testing from the other, so they never share a caption.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from xacle_stack.synth.events import find_event

Half = Literal["fit", "demo"]
Order = Literal["then", "while"]
Level = Literal["faint", "plain", "loud"]
T = TypeVar("T")

_LEVEL_WORDS: dict[Level, tuple[str, ...]] = {
    "faint": ("in the distance", "faintly", "quietly", "softly", "far away"),
    "plain": ("", "", "", "", "", "outside", "for a while", "again and again", "nearby"),
    "loud": ("loudly", "very loudly", "at full volume", "noisily"),
}


@dataclass(frozen=True)
class Story:
    """The content of a caption.

    Attributes
    ----------
    kinds : tuple of str
        One to three kinds of events, in the order of the caption.
    levels : tuple of {"faint", "plain", "loud"}
        One for each event.
    order : {"then", "while"}
        Whether the events follow one another or happen at the same time.
    """

    kinds: tuple[str, ...]
    levels: tuple[Level, ...]
    order: Order


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Return one of the options."""
    return options[int(rng.integers(len(options)))]


def caption_half(caption: str) -> Half:
    """Return the half of a caption, which does not depend on case and punctuation.

    Parameters
    ----------
    caption : str

    Returns
    -------
    half : {"fit", "demo"}
        Captions of "fit" may be used to fit a model, those of "demo" to test it.

    Examples
    --------
    >>> caption_half("A dog barks.") == caption_half("a dog barks")
    True
    """
    words = " ".join(re.findall(r"\w+", caption.casefold()))
    parity = hashlib.blake2b(words.encode(), digest_size=1).digest()[0] & 1
    return "demo" if parity else "fit"


def write_caption(rng: np.random.Generator, story: Story, half: Half) -> str:
    """Draw a caption for a story that belongs to the given half.

    Parameters
    ----------
    rng : numpy.random.Generator
    story : Story
    half : {"fit", "demo"}

    Returns
    -------
    caption : str

    Examples
    --------
    >>> story = Story(("dog", "rain"), ("faint", "plain"), "while")
    >>> caption = write_caption(np.random.default_rng(0), story, "demo")
    >>> caption_half(caption)
    'demo'
    """
    while True:
        sentence = _sentence(rng, story)
        if rng.random() < 0.85:
            sentence = sentence[0].upper() + sentence[1:]
        if rng.random() < 0.2:
            sentence += "."
        if caption_half(sentence) == half:
            return sentence


def _sentence(rng: np.random.Generator, story: Story) -> str:
    told = list(zip(story.kinds, story.levels, strict=True))
    finite = [_finite(rng, kind, level) for kind, level in told]
    ing = [_participle(rng, kind, level) for kind, level in told]
    if len(told) == 1:
        return pick(rng, (finite[0], finite[0], ing[0], _as_sound(rng, ing[0])))
    frames = _FRAMES[story.order, len(told)]
    return pick(rng, frames).format(f=finite, g=ing)


def _words(rng: np.random.Generator, kind: str) -> tuple[str, tuple[str, str]]:
    clause = pick(rng, find_event(kind).clauses)
    return pick(rng, clause.subjects), pick(rng, clause.verbs)


def _finite(rng: np.random.Generator, kind: str, level: Level) -> str:
    subject, (verb, _) = _words(rng, kind)
    return _joined(subject, verb, pick(rng, _LEVEL_WORDS[level]))


def _participle(rng: np.random.Generator, kind: str, level: Level) -> str:
    subject, (_, verb) = _words(rng, kind)
    return _joined(subject, verb, pick(rng, _LEVEL_WORDS[level]))


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)


def _as_sound(rng: np.random.Generator, participle: str) -> str:
    return pick(
        rng,
        (
            f"the sound of {participle}",
            f"sounds of {participle}",
            f"a recording of {participle}",
            f"you can hear {participle}",
            f"there is {participle}",
        ),
    )


# f are clauses with a finite verb, g with a participle, numbered in the order of the story.
_FRAMES: dict[tuple[Order, int], tuple[str, ...]] = {
    ("then", 2): (
        "{f[0]}, then {f[1]}",
        "{f[0]} and then {f[1]}",
        "{g[0]} followed by {g[1]}",
        "{f[0]}, followed by {g[1]}",
        "first {f[0]}, then {f[1]}",
        "{f[0]} before {f[1]}",
        "after {f[0]}, {f[1]}",
        "{f[1]} after {f[0]}",
        "{g[0]}, and afterwards {g[1]}",
        "{f[0]} and later {f[1]}",
    ),
    ("while", 2): (
        "{f[0]} while {f[1]}",
        "{f[0]} as {f[1]}",
        "{f[0]} with {g[1]} in the background",
        "{g[0]} and {g[1]} at the same time",
        "{f[0]} over {g[1]}",
        "while {f[1]}, {f[0]}",
        "{g[0]} together with {g[1]}",
        "{f[0]} and {f[1]}",
        "{g[0]} with {g[1]}",
    ),
    ("then", 3): (
        "{f[0]}, then {f[1]} and finally {f[2]}",
        "{g[0]} followed by {g[1]} and then {g[2]}",
        "{f[0]}, {f[1]}, and at the end {f[2]}",
        "first {f[0]}, next {f[1]}, then {f[2]}",
        "{f[0]}, followed by {g[1]}, then {g[2]}",
    ),
    ("while", 3): (
        "{f[0]} while {f[1]} and {f[2]}",
        "{f[0]} with {g[1]} and {g[2]} in the background",
        "{g[0]}, {g[1]} and {g[2]} all at once",
        "{f[0]} as {f[1]}, with {g[2]}",
        "{g[0]} together with {g[1]} and {g[2]}",
    ),
}
