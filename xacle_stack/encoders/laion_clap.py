"""LAION-CLAP: clips and captions in one 512-dimensional space.

Source: Wu et al., ICASSP 2023, arXiv:2211.06687.  Extra: ``encoders``.

A checkpoint is a folder in the format of transformers, or one of LAION's own ``.pt`` files, whose
size is recognised.  Both become transformers' ``ClapModel``.  Only the spectrogram is our own,
because the library's crops longer clips at random and computes one clip at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.audio import repeat_to_length
from xacle_stack.encoders.base import EMBEDDING, EncoderInfo
from xacle_stack.encoders.checkpoint import (
    Weights,
    find_tokenizer,
    load_exactly,
    read_tensors,
)
from xacle_stack.encoders.laion_mel import (
    HOP,
    N_FFT,
    N_FRAMES,
    N_MELS,
    SAMPLE_RATE_HZ,
    WINDOW,
    build_filters,
    fuse,
    log_mel,
)
from xacle_stack.encoders.laion_original import config_settings, read_original
from xacle_stack.encoders.text_towers import ROBERTA
from xacle_stack.encoders.torch_encoder import PRECISIONS, Tensor, TorchEncoder, in_order
from xacle_stack.encoders.transformers_folder import check_settings, read_config, read_json
from xacle_stack.errors import EncoderError

N_DIMS = 512
MAX_TOKENS = 77

_FILES = (
    ("model.safetensors", "pytorch_model.bin"),
    ("config.json",),
    ("preprocessor_config.json",),
)
# Tables that the model computes; files of some ages contain them.
_COMPUTED = ("*.position_ids", "*.token_type_ids", "*.relative_position_index")


def _info(name: str, summary: str, preprocessing: str, hub_id: str, item_mb: int) -> EncoderInfo:
    weights = Weights(
        files=_FILES,
        optional=("tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json"),
        hub_id=hub_id,
        source=f"{hub_id} from the Hugging Face hub",
    )
    return EncoderInfo(
        name=name,
        summary=f"{summary}: one space for clips and captions",
        audio_outputs={EMBEDDING: N_DIMS},
        text_outputs={EMBEDDING: N_DIMS},
        sample_rate_hz=SAMPLE_RATE_HZ,
        window_s=10.0,
        preprocessing=f"{preprocessing}; 77 tokens; normalised",
        weights=weights,
        tokenizer=ROBERTA.tokenizer,
        extra="encoders",
        requires=("torch", "transformers"),
        precisions=PRECISIONS,
        item_mb=item_mb,
        licence="Apache-2.0",
        tested_with="real code",
    )


class _LaionClap(TorchEncoder):
    """The base of the variants: loading, captions and the spectrogram."""

    is_fused: ClassVar[bool]

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        what, transformers = cls._what(), cls._require("transformers")
        if path.is_file():
            file, (lowest, highest) = path, (50.0, 14_000.0)
            state = read_original(what, path)
            config = transformers.ClapConfig(**config_settings(state))
            cls._check_fusion(path, config.audio_config)
        else:
            file = Weights(_FILES).file(path)
            config = read_config(what, path, transformers.ClapConfig)
            cls._check_fusion(path, config.audio_config)
            check_settings(what, path, config, projection_dim=N_DIMS)
            check_settings(what, path, config.audio_config, num_mel_bins=N_MELS, spec_size=256)
            lowest, highest = _read_frequencies(what, path)
            state = read_tensors(what, file)
        model = transformers.ClapModel(config).float()
        load_exactly(what, model, state, file, may_miss=_COMPUTED, may_ignore=_COMPUTED)
        audio_utils = cls._require("transformers.audio_utils")
        scale = "htk" if cls.is_fused else "slaney"
        filters = build_filters(audio_utils, lowest, highest, scale)
        model.register_buffer("mel_filters", filters, persistent=False)

        files = find_tokenizer(cls.info.name, ROBERTA.tokenizer, path)
        n_tokens = config.text_config.vocab_size
        return model, ROBERTA.read_tokenizer(what, transformers, files, n_tokens)

    @classmethod
    def _check_fusion(cls, path: Path, audio: Any) -> None:
        if audio.enable_fusion == cls.is_fused:
            return
        if audio.enable_fusion:
            kind, name = "with feature fusion", "fused"
        else:
            is_tiny = audio.patch_embeds_hidden_size <= 96
            kind, name = "without feature fusion", "unfused" if is_tiny else "larger-general"
        raise EncoderError(
            f"{cls._what()}: {path} holds a model {kind}. Name it for the encoder that it belongs "
            f"to: --checkpoint laion-clap-{name}={path}, or in the recipe under [checkpoints]."
        )

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        pooled = self.model.text_model(**self._tokens(captions, MAX_TOKENS)).pooler_output
        return {EMBEDDING: _normalise(self.model.text_projection(pooled))}

    def _log_mel(self, samples: Tensor) -> Tensor:
        with self._full_precision():
            return log_mel(samples, self.model.mel_filters)

    def _embed_mel(self, mel: Tensor, is_longer: Tensor | None = None) -> Tensor:
        """Embed spectrograms of shape (n, 1, 1001, 64), or (n, 4, 1001, 64) for fusion."""
        pooled = self.model.audio_model(input_features=mel, is_longer=is_longer).pooler_output
        return _normalise(self.model.audio_projection(pooled))


class LaionClapUnfused(_LaionClap):
    """HTSAT-tiny and RoBERTa.

    A clip shorter than 10 s is repeated as often as it fits completely, then padded with zeros.
    For a longer clip, the normalised embeddings of its fixed 10 s windows are averaged, and the
    mean is normalised.
    """

    info = _info(
        name="laion-clap-unfused",
        summary="LAION-CLAP, HTSAT-tiny without fusion",
        preprocessing="repeated to 10 s, mean over 10 s windows",
        hub_id="laion/clap-htsat-unfused",
        item_mb=100,
    )
    is_fused = False

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        def embed(windows: Tensor) -> Tensor:
            return self._embed_mel(self._log_mel(windows).unsqueeze(1))

        return {EMBEDDING: _normalise(self._mean_over_windows(clips, WINDOW, embed))}


class LaionClapLargerGeneral(LaionClapUnfused):
    """HTSAT-base and RoBERTa, trained on music and speech as well."""

    info = _info(
        name="laion-clap-larger-general",
        summary="LAION-CLAP, larger and general: HTSAT-base without fusion",
        preprocessing="repeated to 10 s, mean over 10 s windows",
        hub_id="laion/larger_clap_general",
        item_mb=150,
    )


class LaionClapLargerMusic(LaionClapLargerGeneral):
    """HTSAT-base and RoBERTa, trained on music."""

    info = _info(
        name="laion-clap-larger-music",
        summary="LAION-CLAP, larger, for music: HTSAT-base without fusion",
        preprocessing="repeated to 10 s, mean over 10 s windows",
        hub_id="laion/larger_clap_music",
        item_mb=150,
    )


class LaionClapLargerMusicSpeech(LaionClapLargerGeneral):
    """HTSAT-base and RoBERTa, trained on music and speech."""

    info = _info(
        name="laion-clap-larger-music-speech",
        summary="LAION-CLAP, larger, for music and speech: HTSAT-base without fusion",
        preprocessing="repeated to 10 s, mean over 10 s windows",
        hub_id="laion/larger_clap_music_and_speech",
        item_mb=150,
    )


class LaionClapFused(_LaionClap):
    """HTSAT-tiny with feature fusion, and RoBERTa.

    A clip of at most 10 s is repeated and padded as in the other variants and marked as not longer,
    which gives the embedding of laion_clap.  The feature extractor of transformers would mark a
    random clip of such a batch as longer.

    A longer clip is encoded as in training, from the whole spectrogram shrunk to 1,001 frames and
    three chunks of 10 s.  The possible starts of a chunk are divided into thirds; training drew one
    start from each third at random, and here it is the middle.
    """

    info = _info(
        name="laion-clap-fused",
        summary="LAION-CLAP, HTSAT-tiny with feature fusion",
        preprocessing="repeated to 10 s; longer: whole and three fixed chunks",
        hub_id="laion/clap-htsat-fused",
        item_mb=100,
    )
    is_fused = True

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        lengths = np.array([len(clip) for clip in clips])
        # Longer clips come one by one: their spectrograms differ in length and may be large.
        groups = [np.flatnonzero(lengths <= WINDOW), *np.flatnonzero(lengths > WINDOW)[:, None]]
        mels, longer = [], []
        for indices in (group for group in groups if len(group)):
            filled = [repeat_to_length(clips[index], WINDOW) for index in indices]
            samples = np.stack(filled).astype(np.float32, copy=False)
            mel = self._log_mel(self._on_device(samples))
            mels.append((indices, fuse(mel)))
            longer.append((indices, mel.new_full((len(mel),), mel.shape[1] > N_FRAMES)))
        return {EMBEDDING: self._embed_mel(in_order(mels), in_order(longer))}


def _normalise(embeddings: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.normalize(embeddings.float(), dim=-1)


def _read_frequencies(what: str, folder: Path) -> tuple[float, float]:
    """Return the lowest and the highest frequency of the filters, after checking the rest."""
    settings = read_json(what, folder, "preprocessor_config.json")
    check_settings(
        what,
        folder,
        SimpleNamespace(**settings),
        sampling_rate=SAMPLE_RATE_HZ,
        fft_window_size=N_FFT,
        hop_length=HOP,
        feature_size=N_MELS,
        max_length_s=10,
        padding="repeatpad",
    )
    # These are the defaults of ClapFeatureExtractor.
    return float(settings.get("frequency_min", 0)), float(settings.get("frequency_max", 14_000))
