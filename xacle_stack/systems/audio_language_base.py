"""What the scoring and the captioning audio language model share as estimators."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np

from xacle_stack._large_arrays import LargeArrays
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import (
    check_choice,
    check_positive,
    check_scores,
    check_share,
    check_whole_number,
)
from xacle_stack.encoders.checkpoint import hash_files, load_exactly, read_tensors
from xacle_stack.encoders.device import resolve_devices
from xacle_stack.errors import ModelFileError, StackingError, bullet_list
from xacle_stack.features import CaptionedSequences
from xacle_stack.systems.audio_language_network import Head, Tuning, audio_language_network
from xacle_stack.systems.checkpoints import TrainingCheckpoint, digest_of
from xacle_stack.systems.language_model import (
    FILES,
    LanguageModel,
    check_language_state,
    find_language_model,
    language_from,
    load_pretrained,
    read_language_model,
)
from xacle_stack.systems.neural import NeuralRegressor
from xacle_stack.systems.plan import TrainingPlan
from xacle_stack.systems.training import Examples, Module, Tensor
from xacle_stack.table import FeatureTable

DEFAULT_LANGUAGE_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
# The tokens beside the caption and the clip: the start and the end of the clip, and the score.
N_SPECIAL = 3
_FINAL_RATE = 0.01
_SAMPLED_CLIPS = 64
# What a language model computes when it is built, such as masks for its longest sequence.
_MAX_COMPUTED = 2**28
# What changes where and how long a training runs, and not its result.
_NO_RESULT = frozenset({"device", "verbose", "checkpoints", "checkpoint_minutes", "random_state"})


class AudioLanguageEstimator(NeuralRegressor):
    """A language model that reads a clip as projected vectors between tokens.

    A subclass stores the settings, and says which head its network has and on which side captions
    are padded.  Once fitted, it holds all that it computes with: the weights, the language model's
    settings and its tokenizer.
    """

    takes_tables = False  # it takes sequences

    language_model: str
    n_audio_tokens: int
    max_tokens: int
    dropout: float
    tuning: Tuning
    lora_rank: int
    gradient_checkpointing: bool
    initial: str | None
    learning_rate: float
    batch_size: int
    micro_batch: int | None
    checkpoints: str | Path | None
    checkpoint_minutes: float
    language_: dict[str, Any]
    head: Head | None

    _schedule = "cosine-by-epoch"
    _max_width = 2**20  # language models have large tables of tokens
    _pads_left: ClassVar[bool]

    def check_settings(self) -> None:
        """Check the settings, without data and without PyTorch; errors as of the base class."""
        super().check_settings()
        for name, value in (("language_model", self.language_model), ("initial", self.initial)):
            if not (isinstance(value, str) and value) and not (name == "initial" and value is None):
                raise StackingError(f"{name} must be the name of a folder or file, got {value!r}.")
        for name in ("n_audio_tokens", "max_tokens", "lora_rank"):
            check_whole_number(name, getattr(self, name), 1)
        check_share("dropout", self.dropout)
        check_choice("tuning", self.tuning, get_args(Tuning))
        check_positive("checkpoint_minutes", self.checkpoint_minutes)
        if not isinstance(self.gradient_checkpointing, bool):
            raise StackingError(
                f"gradient_checkpointing must be True or False, got "
                f"{self.gradient_checkpointing!r}."
            )

    def check_state(self) -> None:
        """Check weights and settings that come from a file; errors as of `NeuralRegressor`."""
        check_language_state(self.language_)
        super().check_state()

    def _check_network(self) -> Module:
        network = super()._check_network()
        import torch

        # Some models keep it in buffers, others in plain attributes.
        plain = [one for module in network.modules() for one in vars(module).values()]
        n_computed = sum(x.numel() for x in (*network.buffers(), *filter(torch.is_tensor, plain)))
        if n_computed > _MAX_COMPUTED:
            raise ModelFileError(
                f"language_: its settings have the model compute {n_computed} numbers in advance, "
                f"the most is {_MAX_COMPUTED}."
            )
        return network

    def _check_pairs(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        if isinstance(X, FeatureTable):
            raise StackingError(
                "X is a FeatureTable, which has one vector for each clip. Give CaptionedSequences, "
                "as CaptionedSequenceBuilder makes them."
            )
        if isinstance(X, CaptionedSequences):
            return X, check_scores(y, len(X)) if reset else None
        return super()._check_pairs(X, y, reset=reset)

    def _read(self, X: Any, *, reset: bool) -> CaptionedSequences:
        if isinstance(X, CaptionedSequences):
            pairs = X
        else:  # the columns of an array are a clip of one vector, without a caption
            pairs = CaptionedSequences(list(X[:, np.newaxis]), [""] * len(X))
        if reset:
            language, _ = read_language_model(self.language_model)
            self._check_room(language)
            self.language_ = asdict(language)
            self.n_features_in_, self.spaces_ = pairs.shape[1], ()
            self.widths_ = [(pairs.frames.n_dims, language.n_dims)]
        elif pairs.frames.n_dims != self.widths_[0][0]:
            raise StackingError(
                f"vectors of {pairs.frames.n_dims} dimensions, {self.widths_[0][0]} when fitted. "
                "Use the encoder whose vectors the system was fitted on."
            )
        return pairs

    def _check_room(self, language: LanguageModel) -> None:
        longest = self.max_tokens + self.n_audio_tokens + N_SPECIAL
        if language.n_positions is not None and longest > language.n_positions:
            raise StackingError(
                f"max_tokens={self.max_tokens} of a caption, n_audio_tokens={self.n_audio_tokens} "
                f"of a clip and {N_SPECIAL} more make {longest} tokens, but the language model "
                f"{self.language_model!r} has room for {language.n_positions}. Set fewer."
            )

    def _build(self) -> Module:
        return audio_language_network(
            language_from(**self.language_),
            self.widths_[0][0],
            dropout=self.dropout,
            head=self.head,
        )

    def _build_to_train(self) -> Module:
        network = self._build()
        if self.initial is None:
            load_pretrained(network.language_model, find_language_model(self.language_model))
            network.reset_special()
        else:
            what, file = f"initial={self.initial!r}", Path(self.initial).expanduser()
            tensors = read_tensors(what, file)
            load_exactly(
                what,
                network,
                # In the file beside a saved model, the names begin with the number of the mapping.
                {name.removeprefix("0/"): tensor for name, tensor in tensors.items()},
                file,
                may_miss=["head.*"],  # those of a captioning network
                may_ignore=[] if self.head is None else ["language_model.lm_head.*"],
            )
        network.prepare_training(self.tuning, self.lora_rank, self.gradient_checkpointing)
        return network

    def _plain(self, weights: dict[str, Any]) -> LargeArrays:
        if self.tuning != "lora":
            return LargeArrays(weights)
        import torch

        network = self._build()
        network.prepare_training(self.tuning, self.lora_rank, recomputes=False)
        network.load_state_dict({name: torch.from_numpy(x) for name, x in weights.items()})
        network.merge_adapters()
        return LargeArrays({name: tensor.numpy() for name, tensor in network.state_dict().items()})

    def _devices(self) -> tuple[str, ...]:
        return resolve_devices(self.device)

    def _plan(self) -> TrainingPlan:
        return replace(
            super()._plan(),
            optimizer="adamw",
            final_learning_rate=_FINAL_RATE * self.learning_rate,
            block_rows=self.micro_batch or self.batch_size,
        )

    def _inputs(self, pairs: CaptionedSequences, device: str) -> ClipsAndCaptions:
        language = language_from(**self.language_)
        captions = {caption: language.tokens(caption) for caption in dict.fromkeys(pairs.captions)}
        long = [
            f"{len(tokens)} tokens: {caption[:80]!r}"
            for caption, tokens in captions.items()
            if len(tokens) > self.max_tokens
        ]
        if long:
            raise StackingError(
                f"{len(long)} caption(s) have more than max_tokens={self.max_tokens} tokens. "
                f"Shorten them, or set max_tokens higher:\n{bullet_list(long)}"
            )
        end = [] if self._pads_left else [language.end_token]
        return ClipsAndCaptions(
            pairs,
            {caption: [*tokens, *end] for caption, tokens in captions.items()},
            self.n_audio_tokens,
            pads_left=self._pads_left,
        )

    def _checkpoint(
        self, pairs: CaptionedSequences, examples: Examples, validation: Examples, seed: int
    ) -> TrainingCheckpoint | None:
        if self.checkpoints is None:
            return None
        settings = {k: v for k, v in self.get_params().items() if k not in _NO_RESULT}
        files = [FILES.files_in(find_language_model(self.language_model))]
        files += [] if self.initial is None else [[Path(self.initial).expanduser()]]
        sample = np.unique(np.linspace(0, len(pairs) - 1, _SAMPLED_CLIPS).astype(np.int64))
        identity = digest_of(
            json.dumps({**settings, "class": type(self).__name__}, sort_keys=True, default=str),
            *(hash_files(each[0].parent, each) for each in files),
            f"{seed} {len(self._devices())} {len(pairs.views)}",
            "\0".join(pairs.captions),
            *pairs.frames[sample],
            *(
                array
                for each in (examples, validation)
                for array in (each.rows, each.targets, each.weights)
            ),
        )
        return TrainingCheckpoint(self.checkpoints, identity, self.checkpoint_minutes)


class ClipsAndCaptions:
    """What a network takes of pairs, by their row numbers, on the CPU.

    Another process can be given it, and the network brings it to its device.

    Attributes
    ----------
    n_tokens : ndarray of shape (n_pairs,)
        Of each caption.
    """

    def __init__(
        self,
        pairs: CaptionedSequences,
        tokens: dict[str, list[int]],
        n_audio_tokens: int,
        *,
        pads_left: bool,
    ) -> None:
        self._views = [pairs.frames, *pairs.views]
        numbers = {caption: number for number, caption in enumerate(tokens)}
        self._caption = np.array([numbers[caption] for caption in pairs.captions])
        lengths = np.array([len(each) for each in tokens.values()])
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._tokens = np.array([one for each in tokens.values() for one in each], dtype=np.int32)
        self.n_tokens: IntArray = lengths[self._caption]
        self._n_audio_tokens, self._pads_left = n_audio_tokens, pads_left

    def __call__(self, rows: IntArray, rng: np.random.Generator | None) -> tuple[Tensor, ...]:
        """Return audio vectors, tokens and their mask; a generator draws a view of each clip."""
        import torch

        audio = torch.from_numpy(np.stack(self._pooled(rows, rng)))
        n_tokens = self.n_tokens[rows]
        tokens = np.zeros((len(rows), n_tokens.max()), dtype=np.int64)
        mask = np.zeros(tokens.shape, dtype=np.int64)
        for row, (number, n) in enumerate(zip(self._caption[rows], n_tokens, strict=True)):
            place = slice(tokens.shape[1] - n, None) if self._pads_left else slice(n)
            start = self._starts[number]
            tokens[row, place], mask[row, place] = self._tokens[start : start + n], 1
        return audio, torch.from_numpy(tokens), torch.from_numpy(mask)

    def _pooled(self, rows: IntArray, rng: np.random.Generator | None) -> list[FloatArray]:
        """Return each clip's vectors, pooled to one number of them."""
        import torch
        from torch.nn.functional import adaptive_avg_pool1d

        n_views = len(self._views)
        views = np.zeros(len(rows), int) if rng is None else rng.integers(n_views, size=len(rows))
        found: dict[int, FloatArray] = {}
        for view in np.unique(views):
            (chosen,) = np.nonzero(views == view)
            found.update(zip(chosen.tolist(), self._views[view][rows[chosen]], strict=True))
        pooled = []
        for place in range(len(rows)):
            vectors = torch.from_numpy(np.require(found[place], np.float32, "W")).T
            pooled.append(adaptive_avg_pool1d(vectors, self._n_audio_tokens).T.numpy())
        return pooled
