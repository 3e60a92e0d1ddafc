"""Embeddings by laion_clap itself, in a process of its own: ``laion_reference.py FOLDER SIZE``.

Importing laion_clap fetches tokenizers from the hub and changes ``sys.path``, and its encoder of
longer clips draws from NumPy's global state: here it draws the middle.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

VARIANTS = {"unfused": False, "fused": True}
# The text tower's width is laion_clap's; the rest is small, to be quick.
TEXT = {
    "hidden_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 64,
    "vocab_size": 261,
    "max_position_embeddings": 130,
}
# What the model computes; the written checkpoints hold zeros there.
COMPUTED = ("extractor", "attn_mask")


def write_home(root: Path) -> None:
    """Write a folder for HF_HOME with what laion_clap fetches, in small."""
    from random_checkpoints import hub_snapshot
    from random_checkpoints.tokenizers import write_bert, write_roberta
    from transformers import RobertaConfig, RobertaModel

    write_bert(hub_snapshot(root, "bert-base-uncased"))
    write_roberta(hub_snapshot(root, "facebook/bart-base"))
    folder = hub_snapshot(root, "roberta-base")
    write_roberta(folder)
    config = RobertaConfig(**TEXT, type_vocab_size=1, layer_norm_eps=1e-5)
    RobertaModel(config).save_pretrained(folder)


def prepare_torchaudio() -> None:
    """Let torchaudio's own spectrogram be imported where its compiled part cannot be."""
    try:
        import torchaudio  # noqa: F401 - whether that works is the question
    except Exception:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        package = importlib.util.module_from_spec(importlib.util.find_spec("torchaudio"))
        extension = ModuleType("torchaudio._extension")
        extension.fail_if_no_align = lambda function: function
        for part in ("TORCHAUDIO_EXT", "ALIGN", "RIR"):
            setattr(extension, f"_IS_{part}_AVAILABLE", False)
        sys.modules.update({"torchaudio": package, "torchaudio._extension": extension})


def main(folder: Path, size: str) -> None:
    """Read ``NAME.pt``, ``clips.npz`` and ``captions.txt``; write ``NAME.npz``."""
    import torch

    from xacle_stack._optional import stand_ins

    prepare_torchaudio()
    importlib.import_module("torchaudio.transforms")  # laion_clap takes it for an attribute

    with stand_ins(["torchvision"]):
        import laion_clap
        from laion_clap.training import data
    data.torchvision.transforms.Resize = lambda size: (
        lambda mel: torch.nn.functional.interpolate(mel[:, None], size, mode="bilinear")[:, 0]
    )
    np.random.choice = lambda places: places[len(places) // 2]
    clips = [torch.from_numpy(clip) for clip in np.load(folder / "clips.npz").values()]
    captions = (folder / "captions.txt").read_text(encoding="utf-8").splitlines()
    for name, is_fused in VARIANTS.items():
        module = laion_clap.CLAP_Module(is_fused, device="cpu", amodel=f"HTSAT-{size}")
        state = module.model.state_dict()
        own = {k: v.clone() for k, v in state.items() if any(part in k for part in COMPUTED)}
        module.load_ckpt(str(folder / f"{name}.pt"), verbose=False)
        module.model.load_state_dict(own, strict=False)
        heard = clips if is_fused else [clip for clip in clips if len(clip) <= 480_000]
        with torch.no_grad():
            audio = module.get_audio_embedding_from_data(heard, use_tensor=True)
            text = module.get_text_embedding(captions)
        np.savez(folder / f"{name}.npz", audio=audio.numpy(), text=text)


if __name__ == "__main__":
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    main(Path(sys.argv[1]), sys.argv[2])
