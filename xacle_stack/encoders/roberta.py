"""RoBERTa-large: captions as the vector of their first token.

Source: Liu et al., RoBERTa: a robustly optimized BERT pretraining approach, arXiv:1907.11692.
Extra: ``encoders``.
"""

from xacle_stack.encoders.base import EMBEDDING, EncoderInfo
from xacle_stack.encoders.checkpoint import Weights
from xacle_stack.encoders.sentence import (
    ON_DEMAND,
    SEQUENCES,
    TOKENS,
    WEIGHT_FILES,
    SentenceEncoder,
)
from xacle_stack.encoders.text_towers import ROBERTA
from xacle_stack.encoders.torch_encoder import PRECISIONS


class RobertaLarge(SentenceEncoder):
    """The last layer's vector of ``<s>``, the first token of every caption, not normalised.

    Notes
    -----
    The model takes 512 tokens.  Of a longer caption (about 400 words), the first 511 tokens and
    the one that marks the end are kept.
    """

    info = EncoderInfo(
        name="roberta-large",
        summary="RoBERTa-large: the first token's vector of captions, for systems with a text side",
        text_outputs={EMBEDDING: 1024, TOKENS: 1024},
        preprocessing="first of 512 tokens, last layer",
        weights=Weights(
            files=(*WEIGHT_FILES, *ROBERTA.tokenizer.files),
            optional=ROBERTA.tokenizer.optional,
            hub_id="FacebookAI/roberta-large",
            source="FacebookAI/roberta-large from the Hugging Face hub",
        ),
        extra="encoders",
        requires=("torch", "transformers>=4.57"),
        precisions=PRECISIONS,
        item_mb=100,
        licence="MIT",
        tested_with="real code",
        sequences=SEQUENCES,
        on_demand=ON_DEMAND,
    )
    body = "roberta"
    pooling = "first"
    is_normalised = False
    max_tokens = 512
