"""Encoders of captions, from the last layer of BERT or one of its kin.

Source: Devlin et al., BERT, NAACL 2019, arXiv:1810.04805; Liu et al., RoBERTa, arXiv:1907.11692;
Song et al., MPNet, NeurIPS 2020, arXiv:2004.09297; He et al., DeBERTaV3, ICLR 2023,
arXiv:2111.09543.  Extra: ``encoders``.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from xacle_stack.encoders.base import EMBEDDING, SequenceType
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors
from xacle_stack.encoders.sentencepiece_file import SentencePieceTokenizer
from xacle_stack.encoders.text_towers import BERT, DEBERTA, MPNET, ROBERTA, TextTokenizer
from xacle_stack.encoders.torch_encoder import Tensor, TorchEncoder
from xacle_stack.encoders.transformers_folder import check_settings, read_config
from xacle_stack.errors import EncoderError

Pooling = Literal["mean", "first"]
TOKENS = "tokens"
# What every encoder here declares of its tokens.
SEQUENCES: Mapping[str, SequenceType] = {TOKENS: "float16"}
ON_DEMAND = {TOKENS: "last layer, all tokens"}


@dataclass(frozen=True)
class Body:
    """A kind of transformer: the "Bert" of ``BertConfig`` and ``BertModel``, and its tokenizer.

    Of the positions that its configuration counts, the first `n_reserved` are no token's.
    Some are `published_alone`: without the files that say how tokens become one vector.
    """

    classes: str
    tokenizer: TextTokenizer | SentencePieceTokenizer
    n_reserved: int = 0
    has_pooler: bool = True
    published_alone: bool = False


# By the model_type in config.json.
BODIES = {
    "bert": Body("Bert", BERT),
    "deberta-v2": Body("DebertaV2", DEBERTA, has_pooler=False, published_alone=True),
    "mpnet": Body("MPNet", MPNET, n_reserved=2),
    "roberta": Body("Roberta", ROBERTA, n_reserved=2),
}
WEIGHT_FILES = (("model.safetensors", "pytorch_model.bin"), ("config.json",))
# Heads, and tables that the model computes.
_NOT_USED = ("pooler.*", "lm_head.*", "*_predictions.*", "embeddings.*_ids")


class SentenceEncoder(TorchEncoder):
    """The base: a caption's vector is that of its first token, or the mean over its tokens.

    The output ``tokens``, which is computed only where it is asked for, has the vectors of all
    tokens, those that mark the start and the end too, as the last layer gives them.

    Of a caption with more than `max_tokens` tokens, the first ones and the one that marks the end
    are kept.

    Attributes
    ----------
    body : str
        The model's type, as in ``config.json``.
    pooling : {"mean", "first"}
    is_normalised : bool
        Whether vectors are scaled to length 1.
    max_tokens : int
    """

    body: ClassVar[str]
    pooling: ClassVar[Pooling]
    is_normalised: ClassVar[bool]
    max_tokens: ClassVar[int]

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        what, body = cls._what(), BODIES[cls.body]
        transformers = cls._require("transformers")
        config = read_config(what, path, getattr(transformers, f"{body.classes}Config"))
        check_settings(what, path, config, hidden_size=cls.info.text_outputs[EMBEDDING])
        n_positions = config.max_position_embeddings - body.n_reserved
        if n_positions < cls.max_tokens:
            raise EncoderError(
                f"{what}: {path} holds another model of its type: it takes {n_positions} tokens, "
                f"expected {cls.max_tokens} or more."
            )
        settings = {"add_pooling_layer": False} if body.has_pooler else {}
        with warnings.catch_warnings():
            # transformers 4 compiles parts of DeBERTa with what PyTorch has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            model_class = getattr(transformers, f"{body.classes}Model")
        model = model_class(config, **settings)
        file = Weights(WEIGHT_FILES).file(path)
        # The file of a language model has its body under a prefix.
        prefix = f"{model.base_model_prefix}."
        state = {key.removeprefix(prefix): value for key, value in read_tensors(what, file).items()}
        load_exactly(what, model.float(), state, file, may_ignore=_NOT_USED)
        files = body.tokenizer.tokenizer.files_in(path)
        return model, body.tokenizer.read_tokenizer(what, transformers, files, config.vocab_size)

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        import torch

        tokens = self._tokens([self._clean(caption) for caption in captions], self.max_tokens)
        frames = self.model(**tokens).last_hidden_state.float()
        if self.pooling == "first":
            vectors = frames[:, 0]
        else:
            mask = tokens["attention_mask"].unsqueeze(2)
            vectors = (frames * mask).sum(dim=1) / mask.sum(dim=1)
        if self.is_normalised:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        outputs = {EMBEDDING: vectors}
        if TOKENS in self.outputs:
            n_tokens = tokens["attention_mask"].sum(dim=1).tolist()
            outputs[TOKENS] = [row[:n] for row, n in zip(frames, n_tokens, strict=True)]
        return outputs

    @classmethod
    def _clean(cls, caption: str) -> str:
        """Return what the tokenizer is given for a caption."""
        return caption
