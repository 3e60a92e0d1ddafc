"""The base of every encoder that runs in PyTorch: loading, devices, precision, batching by length.

A subclass writes ``_build``, and ``_embed_audio`` or ``_embed_text`` or both.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from xacle_stack._optional import require, stand_ins
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.audio import fixed_windows
from xacle_stack.encoders.base import Encoder, Output, Precision
from xacle_stack.encoders.text_towers import tokenise
from xacle_stack.errors import EncoderError

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
Tensor = Any  # torch is imported where it is used


class TorchEncoder(Encoder):
    """An encoder whose model is a ``torch.nn.Module``.

    Parameters
    ----------
    model : torch.nn.Module
        Moved to the device and put into evaluation mode.
    tokenizer : object, optional
    device : str, default="cpu"
    precision : str, default="float32"
        With another precision, the forward pass runs under ``torch.autocast``, except for
        spectrograms.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenizer = tokenizer
        self.device = device
        self.precision = precision

    @classmethod
    def load(
        cls,
        checkpoint: str | None = None,
        device: str = "cpu",
        *,
        precision: Precision = "float32",
        code: Path | None = None,
    ) -> Self:
        """Load the weights onto a device.

        Parameters
        ----------
        checkpoint, device, code
            See :meth:`Encoder.load`.
        precision : {"float32", "bfloat16", "float16"}, default="float32"

        Raises
        ------
        EncoderError
            If the weights are missing, damaged, or another model's.
        MissingExtraError
            If a package is not installed.
        """
        torch = cls._require("torch")
        if precision not in cls.info.precisions:
            raise EncoderError(
                f"{cls._what()}: precision {precision!r}; expected one of {cls.info.precisions}."
            )
        path = cls.find_checkpoint(checkpoint)
        if path is None:
            raise EncoderError(f"{cls._what()}: it declares no weights in its info.")
        # Building a model draws initial weights, which must not change the caller's random state.
        with torch.random.fork_rng(devices=[]), stand_ins(["torchaudio", "torchvision"]):
            model, tokenizer = cls._build(path, code)
        return cls(model, tokenizer, device=device, precision=precision)

    @classmethod
    @abstractmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        """Return the model with its weights, and a tokenizer or None."""

    @classmethod
    def _what(cls) -> str:
        return f"encoder {cls.info.name!r}"

    @classmethod
    def _require(cls, module: str) -> Any:
        """Import a module that this encoder's extra installs."""
        return require(module, extra=cls.info.extra or "encoders", purpose=cls._what())

    def encode_audio(self, clips: Sequence[FloatArray]) -> dict[str, Output]:
        """Encode mono clips; see :meth:`Encoder.encode_audio`."""
        with self._inference():
            return _to_numpy(self._embed_audio(clips))

    def encode_text(self, captions: Sequence[str]) -> dict[str, Output]:
        """Encode captions; see :meth:`Encoder.encode_text`."""
        with self._inference():
            return _to_numpy(self._embed_text(captions))

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        return dict(super().encode_audio(clips))

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        return dict(super().encode_text(captions))

    @contextmanager
    def _inference(self) -> Iterator[None]:
        import torch

        kind = self.device.partition(":")[0]
        dtype = getattr(torch, self.precision)
        with (
            torch.inference_mode(),
            # Some models draw random numbers in evaluation mode too.
            torch.random.fork_rng(devices=[]),
            torch.autocast(kind, dtype=dtype, enabled=self.precision != "float32"),
        ):
            yield

    @contextmanager
    def _full_precision(self) -> Iterator[None]:
        """Compute a spectrogram in float32, whatever the precision of the model."""
        import torch

        with torch.autocast(self.device.partition(":")[0], enabled=False):
            yield

    def _on_device(self, array: Any) -> Tensor:
        """Copy an array to the device, to a GPU asynchronously from pinned memory."""
        import torch

        tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
        if self.device == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _tokens(self, captions: Sequence[str], max_tokens: int) -> dict[str, Tensor]:
        """Return what a text tower takes for captions; see :func:`tokenise`."""
        ids, mask = tokenise(self.tokenizer, captions, max_tokens)
        return {"input_ids": self._on_device(ids), "attention_mask": self._on_device(mask)}

    def _mean_over_windows(
        self,
        clips: Sequence[FloatArray],
        n_samples: int,
        embed: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Embed each clip's fixed windows and average them, shape (n_clips, n_dims).

        `embed` takes windows of shape (n_windows, n_samples), at most as many as there are clips.
        """
        import torch

        windows = [fixed_windows(clip, n_samples) for clip in clips]
        counts = [len(clip_windows) for clip_windows in windows]
        stacked = np.concatenate(windows).astype(np.float32, copy=False)
        embedded = torch.cat(
            [embed(self._on_device(part)) for part in split_rows(stacked, len(clips))]
        )
        return torch.stack([vectors.float().mean(dim=0) for vectors in embedded.split(counts)])


def in_float32(front_end: Any) -> None:
    """Make a module of a model, such as a spectrogram, compute in float32 under autocast."""
    import torch

    forward = front_end.forward

    def forward_in_float32(samples: Tensor) -> Tensor:
        with torch.autocast(samples.device.type, enabled=False):
            return forward(samples)

    front_end.forward = forward_in_float32


def split_rows(rows: NDArray[Any], max_rows: int) -> list[NDArray[Any]]:
    """Split rows into the fewest nearly equal parts of at most `max_rows`."""
    return np.array_split(rows, math.ceil(len(rows) / max_rows))


def by_length(
    clips: Sequence[FloatArray], max_rows: Callable[[int], int]
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield batches of clips of equal length, for models whose result padding would change.

    A batch is the indices of its clips and the clips as float32 of shape (n_batch, n_samples); it
    has at most ``max_rows(n_samples)`` rows.
    """
    lengths = np.array([len(clip) for clip in clips])
    for length in np.unique(lengths).tolist():
        for indices in split_rows(np.flatnonzero(lengths == length), max_rows(length)):
            stacked = np.stack([clips[index] for index in indices])
            yield indices, stacked.astype(np.float32, copy=False)


def in_order(groups: Sequence[tuple[IntArray, Tensor]]) -> Tensor:
    """Return the rows of all groups in the order of their indices."""
    import torch

    order = np.argsort(np.concatenate([indices for indices, _ in groups]))
    return torch.cat([rows for _, rows in groups])[torch.from_numpy(order)]


def pooled_statistics(frames: Tensor) -> Tensor:
    """Return mean, deviation and maximum over time, shape (n_clips, 3 * n_dims), float32.

    The frames have the shape (n_clips, n_frames, n_dims), without padding.  The deviation is the
    population's, so that a single frame gives 0.
    """
    import torch

    frames = frames.float()
    return torch.cat(
        [frames.mean(dim=1), frames.std(dim=1, correction=0), frames.amax(dim=1)], dim=1
    )


def _to_numpy(outputs: dict[str, Tensor]) -> dict[str, Output]:
    return {
        name: [sequence.float().cpu().numpy() for sequence in values]
        if isinstance(values, list)
        else values.float().cpu().numpy()
        for name, values in outputs.items()
    }
