"""How fast clips and captions are encoded, against what the models alone would need.

Full-size models with random weights (`make checkpoints` makes them), 64 ten-second clips at 16 kHz
and 256 captions, on the CPU.  Each measurement is a process of its own, so that its peak memory is
its own.  (a) `extract_embeddings` from files to cache against the bare forward passes on ready
inputs.  (b) The same against the library's own calls, one file and one caption at a time.  (c) A
data set of XACLE's size, every caption nine times and every clip three times, against its distinct
items alone, with a tiny model: there the work around the model counts most.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile
from huggingface_hub import snapshot_download
from report import ROOT, peak_mib, report

from xacle_stack.encoders import EncoderChoice
from xacle_stack.extract import extract_embeddings
from xacle_stack.pairs import Pairs

CHECKPOINTS = ROOT / "checkpoints"
ENCODERS = {"laion-clap-unfused": "laion_clap", "ms-clap-2023": "msclap"}
N_CLIPS, N_CAPTIONS, RATE_HZ = 64, 256, 16_000
CPU_BATCH, TEXT_BATCH = 8, 32


def main() -> None:
    """Run it."""
    if not CHECKPOINTS.is_dir():
        sys.exit("There are no checkpoints/: make them with `make checkpoints`.")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder), N_CLIPS, 10.0)
        for encoder, library in ENCODERS.items():
            ours, bare, theirs = (
                measure(what, encoder, folder) for what in ("ours", "bare", "theirs")
            )
            rows += [
                [encoder, "bare forward passes, ready inputs", *bare, 1.0],
                [encoder, "(a) extract_embeddings, files to cache", *ours, ours[0] / bare[0]],
                [encoder, f"(b) {library}, one file at a time", *theirs, theirs[0] / ours[0]],
            ]
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder), 4500, 1.0)
        once, repeated = (measure(what, "tiny", folder) for what in ("once", "repeated"))
    rows += [
        ["tiny CLAP", "4,500 clips and 1,500 captions, each once", *once, 1.0],
        ["tiny CLAP", "(c) 13,500 pairs of them", *repeated, repeated[0] / once[0]],
    ]
    header = ["encoder", "what", "seconds", "peak MiB", "ratio"]
    title = (
        f"{N_CLIPS} ten-second clips and {N_CAPTIONS} captions, full-size random weights, without "
        "loading the model; ratio in (a) and (c) to the line above, in (b) theirs to ours"
    )
    report("encoders", title, header, rows)


def measure(what: str, encoder: str, folder: str) -> tuple[float, float]:
    """Run one measurement in a process of its own; return seconds and MiB."""
    environment = {**os.environ, "HF_HOME": str(CHECKPOINTS), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, what, encoder, folder]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds, mib = json.loads(done.stdout.splitlines()[-1])
    print(f"{encoder}, {what}: {seconds:.1f} s, {mib:.0f} MiB")
    return seconds, mib


def write_clips(folder: Path, n_clips: int, duration_s: float) -> None:
    """Write seeded noise of changing colour."""
    rng = np.random.default_rng(0)
    for number in range(n_clips):
        noise = rng.normal(scale=0.1, size=round(duration_s * RATE_HZ))
        smooth = np.convolve(noise, np.ones(1 + number % 20) / (1 + number % 20), mode="same")
        soundfile.write(folder / f"{number:05d}.wav", smooth, RATE_HZ, subtype="PCM_16")


def captions(n_captions: int) -> list[str]:
    """Return seeded captions of 4 to 16 words."""
    words = ["a dog", "barks", "while", "rain", "falls on", "tin", "roofs", "and", "an old man"]
    rng = np.random.default_rng(1)
    lengths = rng.integers(4, 17, size=n_captions)
    return [f"{' '.join(rng.choice(words, n))} {i}" for i, n in enumerate(lengths)]


def pairs_of(folder: Path, n_pairs: int, n_captions: int) -> Pairs:
    """Pair the clips of a folder with captions, both in turn."""
    files, texts = sorted(folder.glob("*.wav")), captions(n_captions)
    ids = tuple(f"{number:05d}.wav" for number in range(n_pairs))
    paths = tuple(files[number % len(files)] for number in range(n_pairs))
    return Pairs("train", ids, paths, tuple(texts[n % n_captions] for n in range(n_pairs)))


def ours(encoder: str, folder: Path) -> float:
    """Time `extract_embeddings` on an empty cache, less the loading of the model."""
    return timed_extraction(
        pairs_of(folder, N_CAPTIONS, N_CAPTIONS), EncoderChoice(encoder), n_jobs=2
    )


def once(encoder: str, folder: Path) -> float:
    """Time the distinct items of (c) alone."""
    return timed_extraction(pairs_of(folder, 4500, 1500), tiny(), n_jobs=2)


def repeated(encoder: str, folder: Path) -> float:
    """Time 13,500 pairs of the same items."""
    return timed_extraction(pairs_of(folder, 13_500, 1500), tiny(), n_jobs=2)


def tiny() -> EncoderChoice:
    """Write a tiny CLAP and return the choice of it."""
    sys.path.insert(0, str(ROOT / "tests"))
    from random_checkpoints import choose

    return choose(Path(tempfile.mkdtemp()), "laion-clap-unfused")


def timed_extraction(pairs: Pairs, choice: EncoderChoice, n_jobs: int) -> float:
    """Time an extraction into an empty cache, less the loading of the model."""
    loading, load = [], choice.encoder.load

    def timed_load(*arguments: Any, **settings: Any) -> Any:
        start = time.perf_counter()
        loaded = load(*arguments, **settings)
        loading.append(time.perf_counter() - start)
        return loaded

    choice.fingerprint()  # reads the checkpoint once; the hash is remembered
    choice.encoder.load = timed_load  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as root:
        start = time.perf_counter()
        extract_embeddings([pairs], [choice], root, device="cpu", n_jobs=n_jobs)
        return time.perf_counter() - start - sum(loading)


def bare(encoder: str, folder: Path) -> float:
    """Time the same forward passes with their inputs ready in memory."""
    import torch

    model = EncoderChoice(encoder).load()
    inputs: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
    towers = forward_modules(encoder, model)
    hooks = [
        tower.register_forward_pre_hook(
            lambda module, args, kwargs: inputs.append((module, args, kwargs)), with_kwargs=True
        )
        for tower in towers
    ]
    clips = [
        soundfile.read(file, dtype="float32")[0]
        for file in sorted(folder.glob("*.wav"))[:CPU_BATCH]
    ]
    import soxr

    rate = model.info.sample_rate_hz
    clips = [soxr.resample(clip, RATE_HZ, rate, quality="HQ") for clip in clips]
    model.encode_audio(clips)
    audio, inputs = inputs, []
    texts = sorted(captions(N_CAPTIONS), key=lambda text: (len(text), text))
    for start in range(0, N_CAPTIONS, TEXT_BATCH):
        model.encode_text(texts[start : start + TEXT_BATCH])
    for hook in hooks:
        hook.remove()
    with torch.inference_mode():
        start_s = time.perf_counter()
        for module, args, kwargs in [*audio * (N_CLIPS // CPU_BATCH), *inputs]:
            module(*args, **kwargs)
        return time.perf_counter() - start_s


def forward_modules(encoder: str, model: Any) -> list[Any]:
    """Return the modules whose inputs are what a user would have ready."""
    if encoder == "ms-clap-2023":
        towers = model.model
        return [towers["audio_encoder"], towers["caption_encoder"]["base"]]
    return [model.model.audio_model, model.model.text_model]


def theirs(encoder: str, folder: Path) -> float:
    """Time the library's own calls, one file and one caption at a time."""
    one_clip, one_caption = library_calls(encoder)
    files = sorted(folder.glob("*.wav"))
    start = time.perf_counter()
    for file in files:
        one_clip(str(file))
    for text in captions(N_CAPTIONS):
        one_caption(text)
    return time.perf_counter() - start


def library_calls(encoder: str) -> tuple[Callable[[str], Any], Callable[[str], Any]]:
    """Return the library's functions for one file and for one caption.

    msclap reads files through torchaudio; where its reader does not run beside this PyTorch,
    soundfile reads for it.
    """
    sys.path.insert(0, str(ROOT / "tests"))
    import torch
    from laion_reference import TEXT, prepare_torchaudio, write_home

    from xacle_stack._optional import stand_ins

    prepare_torchaudio()
    import torchaudio.transforms

    if encoder == "laion-clap-unfused":
        TEXT.update(num_hidden_layers=12, intermediate_size=3072)
        with stand_ins(["torchvision"]):
            write_home(Path(os.environ["HF_HOME"]))
            import laion_clap
        module = laion_clap.CLAP_Module(enable_fusion=False, device="cpu", amodel="HTSAT-tiny")
        return (
            lambda file: module.get_audio_embedding_from_filelist([file]),
            lambda text: module.get_text_embedding([text]),
        )

    def load(file: str) -> tuple[torch.Tensor, int]:
        samples, rate = soundfile.read(file, dtype="float32")
        return torch.from_numpy(samples)[None], rate

    torchaudio.load = load
    with stand_ins(["torchvision"]):
        import msclap
        from transformers import GPT2Config, GPT2Model, GPT2Tokenizer
    snapshot = Path(snapshot_download("microsoft/msclap", local_files_only=True))
    wrapper, tower = sys.modules["msclap.CLAPWrapper"], sys.modules["msclap.models.clap"]
    with (
        mock.patch.object(tower, "AutoModel") as models,
        mock.patch.object(wrapper, "AutoTokenizer") as tokenizers,
    ):
        models.from_pretrained.return_value = GPT2Model(GPT2Config())
        tokenizers.from_pretrained.return_value = GPT2Tokenizer.from_pretrained(
            snapshot_download("openai-community/gpt2", local_files_only=True)
        )
        clap = msclap.CLAP(model_fp=snapshot / "CLAP_weights_2023.pth", version="2023")
    return (
        lambda file: clap.get_audio_embeddings([file], resample=True),
        lambda text: clap.get_text_embeddings([text]),
    )


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        what, encoder, folder = sys.argv[1:]
        function = {"ours": ours, "bare": bare, "theirs": theirs, "once": once}.get(what, repeated)
        print(json.dumps([function(encoder, Path(folder)), peak_mib()]))
