"""MS-CLAP: ``{'model': state_dict}`` with the names of msclap's CLAP, and the hub's tokenizers.

The tables in the text tower are what the transformers of 2022 and 2023 saved with its weights.
"""

import importlib.resources
import math
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

from random_checkpoints import hub_snapshot
from random_checkpoints.tokenizers import write_bert, write_gpt2

HUB_ID = "microsoft/msclap"
GPT2_ID, BERT_ID = "openai-community/gpt2", "google-bert/bert-base-uncased"
TINY_GPT2 = {"n_layer": 2, "n_inner": 64, "n_positions": 128, "vocab_size": 257}
TINY_BERT = {"num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 141}
_COMPUTED = ("spectrogram_extractor", "logmel_extractor", "attn_mask", "running_")


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch
    import transformers

    year = encoder.rpartition("-")[2]
    if year == "2023":
        config = transformers.GPT2Config(**({} if full else TINY_GPT2))
        write_tokenizer, tokenizer_id = write_gpt2, GPT2_ID
        n, dtype = config.n_positions, torch.uint8
        tables = {}
        for layer in range(config.n_layer):
            name = f"caption_encoder.base.h.{layer}.attn"
            tables[f"{name}.bias"] = torch.ones(n, n, dtype=dtype).tril()[None, None]
            tables[f"{name}.masked_bias"] = torch.tensor(-1e4)
    else:
        config = transformers.BertConfig(**({} if full else TINY_BERT))
        write_tokenizer, tokenizer_id = write_bert, BERT_ID
        positions = torch.arange(config.max_position_embeddings)[None]
        tables = {"caption_encoder.base.embeddings.position_ids": positions}
    model = build_clap(year, config)
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        key: _draw(key, value.shape, generator, dense=full)
        for key, value in model.state_dict().items()
        if value.is_floating_point() and not any(part in key for part in _COMPUTED)
    }
    model.load_state_dict(drawn, strict=False)
    state = {**_settle(model, generator), **drawn}
    folder = hub_snapshot(root, HUB_ID)
    torch.save({"model": {**state, **tables}}, folder / f"CLAP_weights_{year}.pth")
    write_tokenizer(hub_snapshot(root, tokenizer_id), config.vocab_size)
    if not full:  # so that it is found outside of the hub's cache too
        write_tokenizer(folder, config.vocab_size)
    return folder / f"CLAP_weights_{year}.pth"


def build_clap(year: str, config: Any) -> Any:
    """Return msclap's own model with a text tower of another size, without asking the hub."""
    import torch
    import transformers
    import yaml

    verbosity = transformers.logging.get_verbosity()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # those of what msclap imports
        from msclap.models import clap

        text = transformers.AutoModel.from_config(config)
        settings = importlib.resources.files("msclap") / "configs" / f"config_{year}.yml"
        arguments = yaml.safe_load(settings.read_text())
        names = clap.CLAP.__init__.__code__.co_varnames
        arguments["sample_rate"] = arguments["sampling_rate"]
        arguments["classes_num"] = arguments["num_classes"]
        with mock.patch.object(clap, "AutoModel") as hub:
            hub.from_pretrained.return_value = text
            model = clap.CLAP(**{name: arguments[name] for name in names if name in arguments})
    transformers.logging.set_verbosity(verbosity)
    return model


def _settle(model: Any, generator: Any) -> dict[str, Any]:
    """Let the audio tower's normalisations learn what comes to them; return the state dict."""
    import torch

    levels = torch.logspace(-3, 0, 6)[:, None]
    noise = levels * torch.randn(len(levels), 44_100, generator=generator)
    for module in model.audio_encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.audio_encoder.train()(noise)
    return model.state_dict()


def _draw(key: str, shape: Any, generator: Any, *, dense: bool) -> Any:
    """Draw one tensor so that signals keep their size; if not dense, from few numbers."""
    import torch

    if len(shape) < 2:
        is_scale = key.endswith("weight")
        return is_scale + 0.1 * torch.randn(shape, generator=generator)
    n_inputs = math.prod(shape[1:])
    scale = 1.0 if "embeddings" in key or "wte" in key or "wpe" in key else n_inputs**-0.5
    if len(shape) == 4:  # convolutions, before a ReLU that halves the power
        scale *= 2**0.5
    if dense or math.prod(shape) < 10_000:
        return scale * torch.randn(shape, generator=generator)
    # Each row is a shift of the same noise: a file holds the noise once.
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    noise = scale * torch.randn(7 * shape[0] + n_inputs, generator=generator)
    return noise.as_strided(shape, [7, *strides[1:]])
