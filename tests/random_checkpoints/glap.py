"""GLAP: the authors' file with their configuration beside the tensors, and SONAR's pieces."""

from pathlib import Path

from random_checkpoints.dasheng import draw_state
from random_checkpoints.deberta import train_pieces
from random_checkpoints.tensors import draw_tensors

N_DIMS = 1024
# In the file of pieces; all are one further in the weights, behind the padding.
MARKS = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import sentencepiece
    import torch

    folder = root / "glap"
    folder.mkdir(parents=True, exist_ok=True)
    pieces = train_pieces(MARKS, "bpe")
    (folder / "sentencepiece.source.256000.model").write_bytes(pieces)
    n_pieces = sentencepiece.SentencePieceProcessor(model_proto=pieces).get_piece_size()
    audio = draw_state(12 if full else 1, 3072 if full else 64, seed)
    audio["front_end.0.spectrogram.window"] = torch.hann_window(512)
    text = draw_text(24 if full else 2, 8192 if full else 64, n_pieces + 206, seed)
    projections = {
        f"{name}_proj.{layer}.weight": (N_DIMS, n_inputs if layer == 0 else N_DIMS)
        for name, n_inputs in (("audio", 768), ("text", N_DIMS))
        for layer in (0, 2)
    }
    shapes = projections | {f"{key[:-6]}bias": shape[:1] for key, shape in projections.items()}
    state = {f"audio_encoder.model.{name}": values for name, values in audio.items()}
    state |= {f"text_encoder.model.{name}": values for name, values in text.items()}
    config = {"outputpath": Path("experiments/glap"), "model": "GLAP", "train_data": ["a.tar"]}
    content = {"model": {**state, **draw_tensors(shapes, seed)}, "config": config}
    torch.save(content, folder / "glap_checkpoint.pt")
    return folder


def draw_text(depth: int, hidden: int, n_tokens: int, seed: int) -> dict:
    """Return random tensors of the text encoder."""
    weights: dict[str, tuple[int, ...]] = {"layer_norm": (N_DIMS,)}
    for layer in (f"encoder.layers.{number}" for number in range(depth)):
        weights |= {f"{layer}.self_attn.{name}_proj": (N_DIMS, N_DIMS) for name in "qkv"}
        weights |= {
            f"{layer}.self_attn.output_proj": (N_DIMS, N_DIMS),
            f"{layer}.self_attn_layer_norm": (N_DIMS,),
            f"{layer}.ffn_layer_norm": (N_DIMS,),
            f"{layer}.ffn.inner_proj": (hidden, N_DIMS),
            f"{layer}.ffn.output_proj": (N_DIMS, hidden),
        }
    shapes = {f"{name}.weight": shape for name, shape in weights.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in weights.items()}
    return draw_tensors({**shapes, "encoder_frontend.embed.weight": (n_tokens, N_DIMS)}, seed)
