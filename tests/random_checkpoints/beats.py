"""BEATs: ``{'cfg', 'model', 'label_dict'}`` with the key names of older PyTorch."""

from pathlib import Path

from random_checkpoints import hub_snapshot
from random_checkpoints.tensors import draw_tensors

HUB_ID = "camenduru/beats"
FILE = "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt"
CONFIG = {
    "input_patch_size": 16,
    "embed_dim": 512,
    "conv_bias": False,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_wise_gradient_decay_ratio": 0.6,
    "layer_norm_first": False,
    "deep_norm": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.0,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "relative_position_embedding": True,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
    "finetuned_model": True,
    "predictor_dropout": 0.0,
    "predictor_class": 527,
}
TINY = {"encoder_layers": 2, "encoder_ffn_embed_dim": 64, "conv_pos": 8}


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch

    folder = hub_snapshot(root, HUB_ID)
    config = CONFIG if full else {**CONFIG, **TINY}
    state = draw_state(config, seed)
    labels = {number: f"/m/{number:05d}" for number in range(config["predictor_class"])}
    torch.save({"cfg": config, "model": state, "label_dict": labels}, folder / FILE)
    return folder


def draw_state(config: dict, seed: int) -> dict:
    state = draw_tensors(_shapes(config), seed)
    # One table of relative positions serves all layers and is saved with each.
    for layer in range(1, config["encoder_layers"]):
        name = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
        state[name.format(layer)] = state[name.format(0)]
    return state


def _shapes(config: dict) -> dict[str, tuple[int, ...]]:
    patch, embed, dims = (
        config["input_patch_size"],
        config["embed_dim"],
        config["encoder_embed_dim"],
    )
    hidden, heads = config["encoder_ffn_embed_dim"], config["encoder_attention_heads"]
    kernel, groups = config["conv_pos"], config["conv_pos_groups"]
    shapes = {
        "post_extract_proj.weight": (dims, embed),
        "post_extract_proj.bias": (dims,),
        "patch_embedding.weight": (embed, 1, patch, patch),
        "encoder.pos_conv.0.bias": (dims,),
        "encoder.pos_conv.0.weight_g": (1, 1, kernel),
        "encoder.pos_conv.0.weight_v": (dims, dims // groups, kernel),
        "encoder.layer_norm.weight": (dims,),
        "encoder.layer_norm.bias": (dims,),
        "layer_norm.weight": (embed,),
        "layer_norm.bias": (embed,),
        "predictor.weight": (config["predictor_class"], dims),
        "predictor.bias": (config["predictor_class"],),
    }
    layer_shapes = {
        "self_attn.grep_a": (1, heads, 1, 1),
        "self_attn.grep_linear.weight": (8, dims // heads),
        "self_attn.grep_linear.bias": (8,),
        "self_attn.relative_attention_bias.weight": (config["num_buckets"], heads),
        "fc1.weight": (hidden, dims),
        "fc1.bias": (hidden,),
        "fc2.weight": (dims, hidden),
        "fc2.bias": (dims,),
    }
    for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
        layer_shapes[f"self_attn.{projection}.weight"] = (dims, dims)
        layer_shapes[f"self_attn.{projection}.bias"] = (dims,)
    for norm in ("self_attn_layer_norm", "final_layer_norm"):
        layer_shapes[f"{norm}.weight"] = layer_shapes[f"{norm}.bias"] = (dims,)
    for layer in range(config["encoder_layers"]):
        shapes |= {f"encoder.layers.{layer}.{name}": shape for name, shape in layer_shapes.items()}
    return shapes
