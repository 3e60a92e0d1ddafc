"""BYOL-A v2: general-purpose audio frames, 25 a second, of 3,072 dimensions.

Source: Niizumi et al., BYOL for Audio: Exploring pre-trained general-purpose audio representations,
IEEE/ACM TASLP 31, 2023, arXiv:2204.07402.  Extra: ``encoders``.

The network's code has an evaluation licence, so it is run only from a clone that the user names.
The spectrogram is our own.  It follows the settings that the clone gives to nnAudio.  With random
weights, the frames were within 1e-6 of those of the clone's own code on nnAudio's spectrogram; the
tests run a stand-in for the code, and librosa's spectrogram.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.encoders.base import EMBEDDING, EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors, state_dict_in
from xacle_stack.encoders.frames import LONGEST_S, cut, group_by_clip, max_pieces
from xacle_stack.encoders.torch_encoder import (
    PRECISIONS,
    Tensor,
    TorchEncoder,
    by_length,
)
from xacle_stack.encoders.users_code import build_with_script, find_script
from xacle_stack.errors import EncoderError

SAMPLE_RATE_HZ = 16_000
N_FFT, HOP, N_MELS = 1024, 160, 64
LOWEST_HZ, HIGHEST_HZ = 60.0, 7800.0
N_DIMS = 3072
FRAMES = "frames"
FILE = "AudioNTT2022-BYOLA-64x96d2048.pth"
# Mean and deviation of the logarithmic spectrogram, from the example in the clone's v2/README.md.
LEVEL_MEAN, LEVEL_DEVIATION = -9.660292, 4.7219563

_CLONE = "a clone of github.com/nttcslab/byol-a"
# The challenge's baseline keeps its copy at the last path.
_SCRIPTS = ("v2/byol_a2/models.py", "byol_a2/models.py", "models/byola/v2/byol_a2/models.py")
_WEIGHTS = Weights(
    files=((FILE, f"*/{FILE}"),),
    source=f"{FILE}, which lies in the folder v2 of github.com/nttcslab/byol-a",
)


class ByolA(TorchEncoder):
    """The frames of ``AudioNTT2022Encoder``, and the sum of their mean and maximum.

    Notes
    -----
    The network is convolutional and takes any length, though it was trained on 0.95 s.  A clip
    longer than 30 s is encoded in equal pieces, whose frames are concatenated.

    The clone and the challenge's baseline normalise levels by the mean and deviation of their data
    set.  A clip's frames would then depend on other clips, so the values of the published example
    are used here.  The baseline also pads or cuts clips to 10 s; here a clip keeps its length.
    """

    info = EncoderInfo(
        name="byol-a",
        summary="BYOL-A v2: frames every 40 ms, and the sum of their mean and maximum",
        audio_outputs={EMBEDDING: N_DIMS, FRAMES: N_DIMS},
        sample_rate_hz=SAMPLE_RATE_HZ,
        preprocessing="fixed mean and deviation of levels, pieces of at most 30 s; mean + max",
        weights=_WEIGHTS,
        extra="encoders",
        requires=("torch", "transformers>=4.57"),
        precisions=PRECISIONS,
        code=_CLONE,
        item_mb=80,
        licence="NTT, for evaluation only",
        tested_with="real code",
        sequences={FRAMES: "float16"},
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        what = cls._what()
        torch = cls._require("torch")
        audio_utils = cls._require("transformers.audio_utils")
        if code is None:
            raise EncoderError(f"{what}: it needs `code`, the folder of {_CLONE}.")
        file = _WEIGHTS.file(path)
        content = read_tensors(what, file)
        script = find_script(what, Path(code), _SCRIPTS, _CLONE)
        network = build_with_script(
            what,
            script,
            lambda module: module.AudioNTT2022Encoder(n_mels=N_MELS, d=N_DIMS),
            file,
            "torch",
        )
        # Like the clone's own loader, this finds the state dict under either key and takes from it
        # what belongs to the network.
        state = state_dict_in(what, state_dict_in(what, content, "state_dict", file), "model", file)
        names = tuple(f"{name}." for name, _ in network.named_children())
        state = {key.removeprefix("model."): value for key, value in state.items()}
        state = {key: value for key, value in state.items() if key.startswith(names)}
        load_exactly(what, network, state, file)
        filters = audio_utils.mel_filter_bank(
            1 + N_FFT // 2,
            N_MELS,
            LOWEST_HZ,
            HIGHEST_HZ,
            SAMPLE_RATE_HZ,
            norm="slaney",
            mel_scale="slaney",
        )
        model = torch.nn.ModuleDict({"network": network})
        model.register_buffer("mel_filters", torch.from_numpy(filters.T).float())
        return model, None

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        import torch

        pieces, counts = cut(clips, LONGEST_S * SAMPLE_RATE_HZ)
        # A clip shorter than a window of the spectrogram would have no frame.
        pieces = [np.pad(piece, (0, max(0, N_FFT - len(piece)))) for piece in pieces]
        frames: dict[int, Tensor] = {}
        for indices, stacked in by_length(
            pieces, lambda n: max_pieces(len(clips), n, SAMPLE_RATE_HZ)
        ):
            encoded = self.model["network"](self._log_mel(stacked)).float()
            frames.update(zip(indices.tolist(), encoded, strict=True))
        by_clip = [torch.cat(clip_frames) for clip_frames in group_by_clip(frames, counts)]
        pooled = [frames.mean(dim=0) + frames.amax(dim=0) for frames in by_clip]
        return {FRAMES: by_clip, EMBEDDING: torch.stack(pooled)}

    def _log_mel(self, samples: FloatArray) -> Tensor:
        """Return normalised logarithmic spectrograms, shape (n_clips, 1, 64, n_frames)."""
        import torch

        with self._full_precision():
            spectrum = torch.stft(
                self._on_device(samples),
                N_FFT,
                HOP,
                window=torch.hann_window(N_FFT, device=self.device),
                pad_mode="reflect",
                return_complex=True,
            )
            power = self.model.mel_filters @ torch.view_as_real(spectrum).square().sum(dim=-1)
            level = (power + torch.finfo(torch.float32).eps).log()
            return ((level - LEVEL_MEAN) / LEVEL_DEVIATION).unsqueeze(1)
