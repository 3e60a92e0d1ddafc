"""Checkpoints with random weights, in exactly the files that the real ones have.

As a script it fills a folder that stands in for the hub's cache, so that recipes run offline
without any real weights::

    python -m random_checkpoints [--tiny] FOLDER [ENCODER ...]      # from tests/
    HF_HOME=FOLDER HF_HUB_OFFLINE=1 make stack RECIPE=features/recipes/paper.toml

``--tiny`` keeps formats and embedding sizes and shrinks everything between.
"""

import importlib
from pathlib import Path

from xacle_stack._optional import stand_ins
from xacle_stack.encoders import TEXT_PREFIX, EncoderChoice, EncoderInfo, get_encoder

# encoder -> module of this package whose write(root, encoder, full=..., seed=...) makes its
# checkpoint below root and returns its path: what --checkpoint would name.
WRITERS: dict[str, str] = {
    "aisfx": "aisfx",
    "all-minilm-l6-v2": "minilm",
    "audiomae": "audiomae",
    "beats": "beats",
    "byol-a": "byol_a",
    "dasheng-base": "dasheng",
    "eat": "eat",
    "glap": "glap",
    "laion-clap-fused": "laion_clap",
    "laion-clap-larger-general": "laion_clap",
    "laion-clap-larger-music": "laion_clap",
    "laion-clap-larger-music-speech": "laion_clap",
    "laion-clap-unfused": "laion_clap",
    "m2d-clap": "m2d_clap",
    "mga-clap": "mga_clap",
    "ms-clap-2022": "ms_clap",
    "ms-clap-2023": "ms_clap",
    "openbeats-large": "openbeats",
    "openbeats-large-as20k": "openbeats",
    "pe-audio": "pe_audio",
    "roberta-large": "roberta",
    "text-tiny-deberta": "deberta",
    "text-tiny-mpnet": "mpnet",
    "wav2vec2-ctc": "wav2vec2_ctc",
    "wavlm-large": "wavlm",
    "whisper-base": "whisper",
}

# hub id of a language model -> module whose write(folder, full=..., seed=...) fills its folder
LANGUAGE_MODELS: dict[str, str] = {"Qwen/Qwen2.5-0.5B-Instruct": "qwen2"}

# What the sentence encoder of a folder is called, before the folder's name.
_OF_FOLDER = "text-"


def info_of(encoder: str) -> EncoderInfo:
    """Return the description of an encoder, or what all sentence encoders of folders share."""
    name = TEXT_PREFIX if encoder.startswith(_OF_FOLDER) else encoder
    return EncoderChoice(name).family.info


def write_checkpoint(root: Path, encoder: str, *, full: bool, seed: int = 0) -> Path:
    """Write the checkpoint of an encoder or a language model below HF_HOME, and return its path."""
    if encoder in LANGUAGE_MODELS:
        module = importlib.import_module(f"random_checkpoints.{LANGUAGE_MODELS[encoder]}")
        folder: Path = module.write(hub_snapshot(root, encoder), full=full, seed=seed)
        return folder
    module = importlib.import_module(f"random_checkpoints.{WRITERS[encoder]}")
    with stand_ins(["torchaudio", "torchvision"]):
        path: Path = module.write(root, encoder, full=full, seed=seed)
    return path


def choose(root: Path, encoder: str) -> EncoderChoice:
    """Write an encoder's tiny checkpoint, and its stand-in code where it needs code."""
    path = write_checkpoint(root, encoder, full=False)
    module = importlib.import_module(f"random_checkpoints.{WRITERS[encoder]}")
    if encoder.startswith(_OF_FOLDER):
        return EncoderChoice(f"{TEXT_PREFIX}{path}", str(path))
    if get_encoder(encoder).info.code is None:
        return EncoderChoice(encoder, str(path))
    code = root / "code" / encoder
    code.mkdir(parents=True, exist_ok=True)
    module.write_code(code)
    return EncoderChoice(encoder, str(path), code=str(code))


def hub_snapshot(root: Path, hub_id: str) -> Path:
    """Return the empty folder where the hub's client looks for a repository's files."""
    repository = root / "hub" / f"models--{hub_id.replace('/', '--')}"
    commit = "0" * 40
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return snapshot
