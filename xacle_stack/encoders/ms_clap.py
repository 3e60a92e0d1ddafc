"""MS-CLAP: clips and captions in one 1,024-dimensional space, 2022 and 2023.

Source: Elizalde et al., CLAP: Learning audio concepts from natural language supervision, ICASSP
2023, arXiv:2206.04769; Natural language supervision for general-purpose audio representations,
ICASSP 2024, arXiv:2309.05767.  Extra: ``msclap``.

The vectors equal msclap's, which are not normalised, except in two cases.  A clip longer than the
window is covered by fixed windows, where msclap takes a random one, and a caption that is too long
is shortened, where msclap fails.
"""

from __future__ import annotations

import importlib.resources
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.encoders.base import EMBEDDING, EncoderInfo
from xacle_stack.encoders.checkpoint import (
    Weights,
    find_tokenizer,
    load_exactly,
    read_tensors,
    state_dict_in,
)
from xacle_stack.encoders.text_towers import BERT, GPT2, TextTower, tokenise
from xacle_stack.encoders.torch_encoder import PRECISIONS, Tensor, TorchEncoder, in_float32

N_DIMS = 1024
SAMPLE_RATE_HZ = 44_100

_TEXT = "caption_encoder.base."
_WEIGHTS = {
    year: Weights(
        files=((f"CLAP_weights_{year}.pth",),),
        hub_id="microsoft/msclap",
        source=f"CLAP_weights_{year}.pth of microsoft/msclap from the Hugging Face hub",
    )
    for year in ("2022", "2023")
}


def _info(year: str, window_s: float, tokens: str, tower: TextTower) -> EncoderInfo:
    return EncoderInfo(
        name=f"ms-clap-{year}",
        summary=f"Microsoft CLAP {year}: one space for clips and captions, not normalised",
        audio_outputs={EMBEDDING: N_DIMS},
        text_outputs={EMBEDDING: N_DIMS},
        sample_rate_hz=SAMPLE_RATE_HZ,
        window_s=window_s,
        preprocessing=f"shorter clips repeated, mean over {window_s:.0f} s windows; {tokens}",
        libraries=("msclap",),
        weights=_WEIGHTS[year],
        tokenizer=tower.tokenizer,
        extra="msclap",
        requires=("torch", "transformers", "msclap"),
        precisions=PRECISIONS,
        item_mb=200,
        licence="MIT",
        tested_with="real code",
    )


class _MsClap(TorchEncoder):
    """The base of both versions; the projections and the audio tower are msclap's classes."""

    year: ClassVar[str]
    text_tower: ClassVar[TextTower]
    max_tokens: ClassVar[int]

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        torch = cls._require("torch")
        transformers = cls._require("transformers")
        with _side_effects_undone(transformers):
            audio, projection = cls._build_msclap()
        file = _WEIGHTS[cls.year].file(path)
        state = state_dict_in(cls._what(), read_tensors(cls._what(), file), "model", file)
        text_state = {k.removeprefix(_TEXT): v for k, v in state.items() if k.startswith(_TEXT)}
        text = cls.text_tower.build(transformers, text_state)
        # The names are those of msclap's CLAP, whose constructor would download the text tower.
        model = torch.nn.ModuleDict(
            {
                "audio_encoder": audio,
                "caption_encoder": torch.nn.ModuleDict({"base": text, "projection": projection}),
            }
        )
        model.register_parameter("logit_scale", torch.nn.Parameter(torch.zeros([])))
        computed = [_TEXT + pattern for pattern in cls.text_tower.computed]
        load_exactly(cls._what(), model, state, file, may_ignore=computed)
        front_end = getattr(audio.base, "htsat", audio.base)
        _use_fft(front_end.spectrogram_extractor)
        in_float32(front_end.spectrogram_extractor)
        in_float32(front_end.logmel_extractor)

        files = find_tokenizer(cls.info.name, cls.text_tower.tokenizer, path)
        n_tokens = text.config.vocab_size
        return model, cls.text_tower.read_tokenizer(cls._what(), transformers, files, n_tokens)

    @classmethod
    def _build_msclap(cls) -> tuple[Any, Any]:
        """Return the audio tower with its projection, and the projection of the text tower."""
        msclap = cls._require("msclap.models.clap")
        yaml = cls._require("yaml")
        file = importlib.resources.files("msclap") / "configs" / f"config_{cls.year}.yml"
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        audio = msclap.AudioEncoder(
            audioenc_name=settings["audioenc_name"],
            d_in=settings["out_emb"],
            d_out=settings["d_proj"],
            sample_rate=settings["sampling_rate"],
            window_size=settings["window_size"],
            hop_size=settings["hop_size"],
            mel_bins=settings["mel_bins"],
            fmin=settings["fmin"],
            fmax=settings["fmax"],
            classes_num=settings["num_classes"],
        )
        return audio, msclap.Projection(settings["transformer_embed_dim"], settings["d_proj"])

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        audio = self.model["audio_encoder"]
        n = round((self.info.window_s or 0) * SAMPLE_RATE_HZ)
        # A shorter clip is repeated until the window is full, and the rest is cut off.
        clips = [clip if len(clip) >= n else np.resize(clip, n) for clip in clips]
        return {EMBEDDING: self._mean_over_windows(clips, n, lambda windows: audio(windows)[0])}

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        import torch

        ids, mask = tokenise(self.tokenizer, self._marked(captions), self.max_tokens)
        encoder = self.model["caption_encoder"]
        frames = encoder["base"](
            input_ids=self._on_device(ids), attention_mask=self._on_device(mask)
        )[0]
        positions = self._on_device(self._positions(ids))
        pooled = frames[torch.arange(len(frames), device=frames.device), positions]
        return {EMBEDDING: encoder["projection"](pooled)}

    @staticmethod
    def _marked(captions: Sequence[str]) -> list[str]:
        """Return the captions with the marks that msclap adds."""
        return list(captions)

    @staticmethod
    def _positions(ids: IntArray) -> IntArray:
        """Return the index of the token whose vector represents each caption."""
        return np.zeros(len(ids), dtype=np.int64)


class MsClap2023(_MsClap):
    """HTSAT and GPT-2, windows of 7 s, not normalised.

    Notes
    -----
    GPT-2 has no padding token, so msclap pads with ``!``, its token 0, and finds the mark of the
    end by counting the other tokens.  For every exclamation mark in a caption, that index is too
    small by one.  This is kept, because all published results of this model have it.
    """

    info = _info("2023", 7.0, "77 tokens, ! as padding", GPT2)
    year = "2023"
    text_tower = GPT2
    max_tokens = 77

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        model, tokenizer = super()._build(path, code)
        tokenizer.add_special_tokens({"pad_token": "!"})
        return model, tokenizer

    @staticmethod
    def _marked(captions: Sequence[str]) -> list[str]:
        return [f"{caption} <|endoftext|>" for caption in captions]

    @staticmethod
    def _positions(ids: IntArray) -> IntArray:
        positions: IntArray = np.count_nonzero(ids, axis=1) - 1
        return positions


class MsClap2022(_MsClap):
    """CNN14 and BERT, windows of 5 s, not normalised."""

    info = _info("2022", 5.0, "100 tokens", BERT)
    year = "2022"
    text_tower = BERT
    max_tokens = 100


def _use_fft(spectrogram: Any) -> None:
    """Compute torchlibrosa's spectrogram by FFT, which is faster than its large convolution."""
    import torch

    n_fft, hop = spectrogram.stft.n_fft, spectrogram.stft.hop_length
    spectrogram.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(samples: Tensor) -> Tensor:
        spectrum = torch.stft(
            samples, n_fft, hop, window=spectrogram.window, pad_mode="reflect", return_complex=True
        )
        return torch.view_as_real(spectrum).square().sum(dim=-1).transpose(1, 2).unsqueeze(1)

    spectrogram.forward = forward


@contextmanager
def _side_effects_undone(transformers: Any) -> Iterator[None]:
    """Keep msclap from turning off the process's warnings and the log of transformers."""
    verbosity = transformers.logging.get_verbosity()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
