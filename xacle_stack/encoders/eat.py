"""EAT, the Efficient Audio Transformer: self-supervised, fine-tuned on AudioSet.

Source: Chen et al., EAT: Self-supervised pre-training with efficient audio transformer, IJCAI
2024, arXiv:2401.03497.  Extra: ``timm``.

The model's code is not in a package.  It comes with the weights and is run only from a local copy
that the user names.  This module was written for the interface of that code and tested with a
stand-in, but not with the code itself.
"""

import hashlib
import importlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from xacle_stack.encoders.base import EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors
from xacle_stack.encoders.kaldi import SAMPLE_RATE_HZ
from xacle_stack.encoders.patches import N_BANDS, N_TIMES, WINDOW_S, PatchEncoder
from xacle_stack.encoders.torch_encoder import PRECISIONS, Tensor, pooled_statistics
from xacle_stack.encoders.transformers_folder import read_config
from xacle_stack.errors import EncoderError

HUB_ID = "worstchan/EAT-base_epoch30_finetune_AS2M"
CODE_FILES = ("configuration_eat.py", "modeling_eat.py")
N_DIMS = 768
WEIGHTS = Weights(
    files=(("model.safetensors", "pytorch_model.bin"), ("config.json",)),
    hub_id=HUB_ID,
    source="an EAT-base checkpoint",
)


class Eat(PatchEncoder):
    """The CLS token, and mean, standard deviation and maximum of the patch tokens.

    Notes
    -----
    For a clip of several windows, CLS tokens and means are averaged, and deviation and maximum are
    those of all tokens together.
    """

    info = EncoderInfo(
        name="eat",
        summary="EAT-base fine-tuned on AudioSet: CLS, mean, deviation and maximum of its tokens",
        audio_outputs={"pooled": 4 * N_DIMS},
        sample_rate_hz=SAMPLE_RATE_HZ,
        window_s=WINDOW_S,
        preprocessing=(
            "clip mean removed; kaldi fbank 128 mels, hanning; 0 to 1,024 frames; "
            "(x + 4.268) / (2 * 4.569); CLS, mean, std, max over patches with audio"
        ),
        libraries=("timm",),
        weights=WEIGHTS,
        extra="timm",
        requires=("torch", "transformers", "timm"),
        precisions=PRECISIONS,
        code=f"the .py files of {HUB_ID} ({', '.join(CODE_FILES)} and what they import)",
        item_mb=120,
        licence="MIT",
    )
    fbank_mean, fbank_deviation = -4.268, 4.569

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        if code is None:
            raise EncoderError(f"{cls._what()}: it needs `code`, a folder with {cls.info.code}.")
        for package in ("transformers", "timm"):  # report a missing package before the code does
            cls._require(package)
        configuration, modeling = _import_code(cls._what(), Path(code))
        folder = path if path.is_dir() else path.parent
        config = read_config(cls._what(), folder, configuration.EATConfig)
        model = modeling.EATModel(config)
        file = WEIGHTS.file(path)
        load_exactly(cls._what(), model, read_tensors(cls._what(), file), file)
        return model, None

    def _embed_patches(self, spectrograms: Tensor, n_times: Sequence[int]) -> Tensor:
        import torch

        tokens = self.model.extract_features(spectrograms)
        expected = (len(spectrograms), 1 + N_TIMES * N_BANDS, N_DIMS)
        if tuple(tokens.shape) != expected:
            raise EncoderError(
                f"{self._what()}: its code returned tokens of shape {tuple(tokens.shape)}; "
                f"expected {expected}: the CLS token and 64 × 8 patches of EAT-base."
            )
        vectors = []
        for window, n in zip(tokens.float(), n_times, strict=True):
            patches = window[1 : 1 + n * N_BANDS]
            vectors.append(torch.cat([window[0], pooled_statistics(patches.unsqueeze(0))[0]]))
        return torch.stack(vectors)

    def _join_windows(self, vectors: Tensor) -> Tensor:
        import torch

        if len(vectors) == 1:
            return vectors[0]
        cls_token, mean, deviation, maximum = vectors.unflatten(1, (4, N_DIMS)).unbind(dim=1)
        # Windows have equally many tokens, so the variances within and between them add up.
        variance = deviation.square().mean(dim=0) + mean.var(dim=0, correction=0)
        return torch.cat(
            [cls_token.mean(dim=0), mean.mean(dim=0), variance.sqrt(), maximum.amax(dim=0)]
        )


def _import_code(what: str, folder: Path) -> tuple[ModuleType, ModuleType]:
    """Import the user's copy of the model's code under a name of our own."""
    missing = [name for name in CODE_FILES if not (folder / name).is_file()]
    if missing:
        raise EncoderError(f"{what}: {folder} has no {missing[0]}. Copy {Eat.info.code} there.")
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(file for file in folder.glob("*.py") if file.is_file()):
        digest.update(file.read_bytes())
    # The name is a package, because the files use relative imports, and depends on their content.
    name = f"_xacle_stack_user_eat_{digest.hexdigest()}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder.resolve())]
        sys.modules[name] = package
    try:
        with warnings.catch_warnings():
            # The code imports timm.layers under its former name.
            warnings.filterwarnings("ignore", r"Importing from timm\.", FutureWarning)
            configuration, modeling = (
                importlib.import_module(f"{name}.{Path(file).stem}") for file in CODE_FILES
            )
    except Exception as error:  # the user's code may raise anything
        raise EncoderError(
            f"{what}: the code in {folder} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return configuration, modeling
