"""Captions that a model writes of clips, and how alike they are to those of people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.encoders import EMBEDDING, EncoderChoice, LoadedEncoders
from xacle_stack.errors import PairsError, StackingError
from xacle_stack.features import cosine_similarity
from xacle_stack.pairs import Pairs
from xacle_stack.scorer import Scorer
from xacle_stack.systems import AudioCaptioner

DEFAULT_ENCODER = "all-minilm-l6-v2"


def write_captions(
    scorer: Scorer, pairs: Pairs, *, n_beams: int = 1, max_new_tokens: int = 64
) -> list[str]:
    """Return the caption that a model writes of each clip; those of the pairs are not read.

    Parameters
    ----------
    scorer : Scorer
        One whose regressor is an :class:`~xacle_stack.AudioCaptioner`.
    pairs : Pairs
        Clips that the scorer's store lacks are encoded.
    n_beams : int, default=1
        How many continuations are followed; with 1 always the most likely next token.
    max_new_tokens : int, default=64
        Longer captions are cut there.

    Returns
    -------
    captions : list of str of length n_pairs

    Raises
    ------
    StackingError
        If the model writes no captions.
    PairsError
        If a clip could not be encoded.
    """
    regressor = getattr(scorer, "regressor_", None)
    if not isinstance(regressor, AudioCaptioner):
        raise StackingError(
            f"this model gives scores and writes no captions ({type(regressor).__name__}). A "
            "captioner is what the stage 'captioning' of the kind \"audio-language-model\" trains: "
            "models/NAME-captioning.skops in the folder of a run."
        )
    clips = scorer.builder_.transform(scorer.embeddings(pairs))
    regressor.set_params(verbose=scorer.progress)
    return regressor.write(clips, n_beams=n_beams, max_new_tokens=max_new_tokens)


def caption_similarity(
    written: Sequence[str],
    references: Sequence[str],
    encoder: str = DEFAULT_ENCODER,
    *,
    device: str = "auto",
) -> FloatArray:
    """Return the cosine between the embeddings of each caption and its reference.

    Parameters
    ----------
    written, references : sequence of str of length n_captions
    encoder : str, default="all-minilm-l6-v2"
        An encoder of captions with an output ``"embedding"``.
    device : str, default="auto"

    Returns
    -------
    similarity : ndarray of shape (n_captions,)
        In [-1, 1]; 0 for a caption without words.

    Raises
    ------
    PairsError
        If there is not one reference for each caption, or one is blank.
    EncoderError
        If the encoder cannot be loaded or has no embedding of captions.

    Examples
    --------
    >>> caption_similarity(["a dog", ""], ["a dog", "rain"], "mini-mel").round(3)
    array([1., 0.])
    """
    if len(written) != len(references):
        raise PairsError(f"{len(written)} captions for {len(references)} references.")
    encoders = LoadedEncoders([EncoderChoice(encoder)], device=device)
    name = encoders.choices[0].info.name
    rows = [row for row, text in enumerate(written) if text.strip()]
    similarity = np.zeros(len(written))
    if rows:
        ours, theirs = (
            encoders.encode_captions([texts[row] for row in rows])[name, EMBEDDING]
            for texts in (written, references)
        )
        similarity[rows] = cosine_similarity(np.asarray(ours), np.asarray(theirs))
    return similarity
