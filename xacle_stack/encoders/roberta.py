"""RoBERTa-large: captions as the vector of their first token.

Source: Liu et al., RoBERTa: a robustly optimized BERT pretraining approach, arXiv:1907.11692.
Extra: ``encoders``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xacle_stack.encoders.base import EMBEDDING, EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors
from xacle_stack.encoders.text_towers import ROBERTA
from xacle_stack.encoders.torch_encoder import PRECISIONS, Tensor, TorchEncoder
from xacle_stack.encoders.transformers_folder import check_settings, read_config

N_DIMS = 1024
MAX_TOKENS = 512

_WEIGHTS = Weights(
    files=(
        ("model.safetensors", "pytorch_model.bin"),
        ("config.json",),
        *ROBERTA.tokenizer.files,
    ),
    optional=ROBERTA.tokenizer.optional,
    hub_id="FacebookAI/roberta-large",
    source="FacebookAI/roberta-large from the Hugging Face hub",
)
# The hub's file is that of a language model, which has its body under this prefix.
_BODY = "roberta."
_NOT_USED = ("lm_head.*", "pooler.*", "embeddings.*_ids")


class RobertaLarge(TorchEncoder):
    """The last layer's vector of ``<s>``, the first token of every caption, not normalised.

    Notes
    -----
    The model takes 512 tokens.  Of a longer caption (about 400 words), the first 511 tokens and
    the one that marks the end are kept.
    """

    info = EncoderInfo(
        name="roberta-large",
        summary="RoBERTa-large: the first token's vector of captions, for systems with a text side",
        text_outputs={EMBEDDING: N_DIMS},
        preprocessing="first of 512 tokens, last layer",
        weights=_WEIGHTS,
        extra="encoders",
        requires=("torch", "transformers>=4.57"),
        precisions=PRECISIONS,
        item_mb=100,
        licence="MIT",
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        what = cls._what()
        transformers = cls._require("transformers")
        config = read_config(what, path, transformers.RobertaConfig)
        check_settings(what, path, config, hidden_size=N_DIMS, max_position_embeddings=514)
        model = transformers.RobertaModel(config, add_pooling_layer=False).float()
        file = _WEIGHTS.file(path)
        state = {key.removeprefix(_BODY): value for key, value in read_tensors(what, file).items()}
        load_exactly(what, model, state, file, may_ignore=_NOT_USED)
        files = ROBERTA.tokenizer.files_in(path)
        return model, ROBERTA.read_tokenizer(what, transformers, files, config.vocab_size)

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        frames = self.model(**self._tokens(captions, MAX_TOKENS)).last_hidden_state
        return {EMBEDDING: frames[:, 0]}
