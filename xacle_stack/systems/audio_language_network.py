"""The network of the audio language model: a projection, a language model, and a head.

Source: the TMU system of the XACLE challenge 2026, arXiv:2602.00604, and its public configuration.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from xacle_stack._optional import require
from xacle_stack.systems.language_model import LanguageModel

Tensor = Any  # torch is imported where a network is built
Module = Any
Tuning = Literal["full", "frozen", "lora"]
Head = Literal["mlp", "linear"]

# The widths of the published head, and of the projection as a multiple of a token's vector.
_HEAD_WIDTHS = (512, 512, 128)
_PROJECTION_FACTOR = 4
# The part of a vector's deviation by which the three added tokens differ at first.
_SPECIAL_DEVIATION = 0.02


def projection(n_audio_dims: int, n_dims: int, dropout: float) -> Module:
    """Return the network from audio vectors to those of a language model's tokens.

    With x normalised by its layer norm, ``g = σ(W_g x)`` and
    ``out = g · W_r x + (1 − g) · W_2 (W_v x · SiLU(W_u x))``, all with biases; ``W_v`` and ``W_u``
    are the two halves of one matrix, and have ``4 · n_dims`` rows each.

    Parameters
    ----------
    n_audio_dims, n_dims : int
    dropout : float
        The share of the hidden values that is dropped.
    """
    torch: Any = require("torch", extra="language", purpose="an audio language model")
    nn = torch.nn

    class GatedProjection(nn.Module):  # type: ignore[name-defined]  # nn is Any
        def __init__(self) -> None:
            super().__init__()
            hidden = _PROJECTION_FACTOR * n_dims
            self.norm = nn.LayerNorm(n_audio_dims)
            self.value_and_gate = nn.Linear(n_audio_dims, 2 * hidden)
            self.dropout = nn.Dropout(dropout)
            self.output = nn.Linear(hidden, n_dims)
            self.gate = nn.Linear(n_audio_dims, n_dims)
            self.residual = nn.Linear(n_audio_dims, n_dims)

        def forward(self, audio: Tensor) -> Tensor:
            audio = self.norm(audio)
            value, gate = self.value_and_gate(audio).chunk(2, dim=-1)
            hidden = self.output(self.dropout(value * nn.functional.silu(gate)))
            share = self.gate(audio).sigmoid()
            return share * self.residual(audio) + (1 - share) * hidden

    return GatedProjection()


def score_head(n_dims: int, kind: Head, dropout: float) -> Module:
    """Return the network from the vector at the score token to one number.

    "mlp" has hidden layers of 512, 512 and 128 with ReLU and dropout, as released; "linear" is one
    layer, as published.  Weights are drawn by Xavier's uniform rule, and biases are zero.
    """
    torch: Any = require("torch", extra="language", purpose="an audio language model")
    nn = torch.nn
    widths = [n_dims, *(_HEAD_WIDTHS if kind == "mlp" else ()), 1]
    layers: list[Any] = []
    for n_in, n_out in pairwise(widths):
        linear = nn.Linear(n_in, n_out)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


def audio_language_network(
    language: LanguageModel,
    n_audio_dims: int,
    *,
    dropout: float,
    head: Head | None,
) -> Module:
    """Return the network with random weights.

    Parameters
    ----------
    language : LanguageModel
    n_audio_dims : int
    dropout : float
        Of the projection and the head.
    head : {"mlp", "linear"} or None
        None for a network that writes captions, which keeps the language model's own head.
    """
    torch: Any = require("torch", extra="language", purpose="an audio language model")
    nn = torch.nn

    class AudioLanguageNetwork(nn.Module):  # type: ignore[name-defined]  # nn is Any
        """Audio vectors and a caption's tokens → the score, or the caption's log-likelihood.

        A caption is scored as ``caption, AUDIO_START, audio, AUDIO_END, SCORE``, and written after
        ``AUDIO_START, audio, AUDIO_END``.
        """

        def __init__(self) -> None:
            super().__init__()
            self.language_model = language.build()
            if head is not None:
                self.language_model.set_output_embeddings(nn.Identity())
            self.projection = projection(n_audio_dims, language.n_dims, dropout)
            # AUDIO_START, AUDIO_END and SCORE have vectors of their own beside the model's table of
            # tokens, so that they are trained where that table is not.
            self.special = nn.Embedding(3, language.n_dims)
            self.reset_special()
            if head is not None:
                self.head = score_head(language.n_dims, head, dropout)

        def reset_special(self) -> None:
            """Draw the three tokens near the mean of all others."""
            table = self.language_model.get_input_embeddings().weight
            if table.device.type == "meta":
                return
            with torch.no_grad():
                self.special.weight.normal_(std=_SPECIAL_DEVIATION)
                self.special.weight.mul_(table.std()).add_(table.mean(dim=0))

        def prepare_training(self, tuning: Tuning, lora_rank: int, recomputes: bool) -> None:
            """Say what of the language model is trained.

            With `recomputes` activations are computed again for the gradients and not kept.
            """
            if recomputes:
                # transformers 5 renames it.
                for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):
                    if enable := getattr(self.language_model, name, None):
                        enable({"use_reentrant": False})
                        break
            if tuning != "full":
                self.language_model.requires_grad_(False)
            if tuning == "lora":
                peft = require("peft", extra="lora", purpose="tuning='lora'")
                settings = peft.LoraConfig(
                    r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear"
                )
                # It changes the model in place.  In a list it is no module of this one.
                with warnings.catch_warnings():
                    # peft asks for what newer versions of transformers rename.
                    warnings.filterwarnings("ignore", ".*gradient_checkpointing", FutureWarning)
                    self.adapters = [peft.get_peft_model(self.language_model, settings)]

        def merge_adapters(self) -> None:
            """Add the trained adapters to the weights that they stand beside."""
            self.language_model = self.adapters.pop().merge_and_unload()

        def _prefix(self, audio: Tensor) -> Tensor:
            """Return the vectors of AUDIO_START, the clip and AUDIO_END."""
            start, end, _ = self.special.weight
            rows = (len(audio), 1, -1)
            return torch.cat([start.expand(rows), self.projection(audio), end.expand(rows)], dim=1)

        def _hidden(self, vectors: Tensor, mask: Tensor) -> Tensor:
            """Return the last hidden states; positions are counted without what is masked."""
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            return self.language_model.base_model(
                inputs_embeds=vectors, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state

        def forward(self, audio: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
            """Return one number a row: the output of the head, or minus the mean log-likelihood.

            Captions are padded on the left for scoring, so that SCORE is the last position of every
            row, and on the right for writing.  `mask` is 1 for tokens and 0 for padding.
            """
            audio, tokens, mask = (x.to(self.special.weight.device) for x in (audio, tokens, mask))
            prefix = self._prefix(audio)
            words = self.language_model.get_input_embeddings()(tokens)
            prefix_mask = mask.new_ones(prefix.shape[:2])
            if head is None:
                vectors = torch.cat([prefix, words[:, :-1]], dim=1)
                hidden = self._hidden(vectors, torch.cat([prefix_mask, mask[:, :-1]], dim=1))
                logits = self.language_model.get_output_embeddings()(
                    hidden[:, prefix.shape[1] - 1 :]
                )
                losses = nn.functional.cross_entropy(
                    logits.float().transpose(1, 2), tokens, reduction="none"
                )
                return (losses * mask).sum(dim=1) / mask.sum(dim=1)
            last = self.special.weight[2].expand(len(audio), 1, -1)
            vectors = torch.cat([words, prefix.to(words.dtype), last.to(words.dtype)], dim=1)
            mask = torch.cat([mask, prefix_mask, mask.new_ones(len(mask), 1)], dim=1)
            return self.head(self._hidden(vectors, mask)[:, -1]).flatten()

        def generate(self, audio: Tensor, n_beams: int, max_tokens: int) -> list[list[int]]:
            """Return the tokens of a caption for each row, without the end."""
            prefix = self._prefix(audio.to(self.special.weight.device))
            mask = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
            written = self.language_model.generate(
                inputs_embeds=prefix,
                attention_mask=mask,
                max_new_tokens=max_tokens,
                num_beams=n_beams,
                do_sample=False,
                eos_token_id=language.end_token,
                pad_token_id=language.end_token,
            )
            return [_until(row, language.end_token) for row in written.tolist()]

    return AudioLanguageNetwork()


def _until(tokens: Sequence[int], end: int) -> list[int]:
    """Return the tokens before the first `end`."""
    kept = list(tokens)
    return kept[: kept.index(end)] if end in kept else kept
