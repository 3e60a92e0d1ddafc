"""A tiny audio language model that learns from scratch, and a full-size one on this machine's CPU.

The tiny one has two layers and random weights, and reads the course of mini-mel's spectrum.  Its
first two stages learn from synthesised scenes with true captions, of other seeds than the demo's;
the teacher is the mean of the cosines of the three embedded spaces.  The full-size one has random
weights in the real format: its times and memory are real, its scores are not.
"""

import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from joblib import Parallel, delayed
from report import ROOT, in_a_process, peak_mib, report

from xacle_stack.captions import caption_similarity
from xacle_stack.features import CaptionedSequenceBuilder, CaptionedSequences
from xacle_stack.metrics import Estimate, srcc
from xacle_stack.pairs import Pairs, read_pairs
from xacle_stack.pseudo_labels import pseudo_label, with_wrong_captions
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.results import Result
from xacle_stack.scorer import Scorer
from xacle_stack.synth import (
    EVENTS,
    SAMPLE_RATE_HZ,
    draw_scene,
    draw_story,
    random_stream,
    render_scene,
    write_caption,
)
from xacle_stack.synth.demo import write_demo
from xacle_stack.synth.events import find_event
from xacle_stack.systems import AudioCaptioner, AudioLanguageModelRegressor, rank_average

sys.path.insert(0, str(ROOT / "tests"))

N_SCENES, N_NEW_SCENES, N_SEEDS, N_FEW = 5_000, 300, 3, 100
SPACES = ["mini-mfcc", "mini-mod", "mini-mel"]
TOKENS = "mini-mel:frames"
TINY: dict[str, Any] = {
    "n_audio_tokens": 12,
    "max_tokens": 64,
    "precision": "float32",
    "device": "cpu",
    "batch_size": 32,
}
# Chosen on the demo's validation split, with one seed.
CAPTIONING = {"epochs": 8, "learning_rate": 2e-3}
PSEUDO_LABELS = {"epochs": 6, "learning_rate": 1e-3}
SCORES = {"epochs": 15, "patience": 8}
# Deviations of the initial weights: scores are learned from larger ones, captions from smaller.
INITIAL = {"stage 3": 0.1, "stages 2 + 3": 0.1, "stages 1 + 2 + 3": 0.02}
LAST_RATE = {"stage 3": 1e-3, "stages 2 + 3": 1e-4, "stages 1 + 2 + 3": 1e-4}
# Another stream than the demo's contents, sounds and listeners.
_STREAM = 9
FULL = {"n_audio_tokens": 100, "max_tokens": 256, "device": "cpu", "batch_size": 16}
N_PARAMETERS = 494_032_768 + 10_103_936 + 787_713 + 3 * 896
WORDS_A_CAPTION = 4  # of three tokens each
# What is trained, rows at once, and whether activations are computed again.
RUNS = [("full", 4, False), ("frozen", 16, False)]
N_LORA = 8 * 24 * (2 * (896 + 896) + 2 * (896 + 128) + 3 * (896 + 4864))
N_BESIDE = 10_103_936 + 787_713 + 3 * 896  # the projection, the head and the three tokens
N_TRAINED = {"full": N_PARAMETERS, "lora": N_BESIDE + N_LORA, "frozen": N_BESIDE}
N_TABLE = 151_936 * 896  # the token embeddings, of which bfloat16 needs no copy
N_LAYERS, N_POSITIONS = 24, 3 * WORDS_A_CAPTION + 103
GPU_GIB, GPU_OTHER_GIB = (8, 16, 24, 80), 1  # what CUDA takes itself is an assumption
MICRO_BATCHES = (1, 2, 4, 8, 16)


def write_scene(folder: Path, number: int) -> tuple[str, str, tuple[str, ...]]:
    """Write the sound of a scene; return its file, a true caption and its events."""
    rng = random_stream(0, "demo", _STREAM, number)
    story = draw_story(rng)
    scene, caption = draw_scene(rng, story), write_caption(rng, story, "fit")
    path = folder / f"{number:05d}.wav"
    soundfile.write(path, render_scene(rng, scene), SAMPLE_RATE_HZ, subtype="PCM_16")
    return str(path), caption, scene.kinds


def write_scenes(folder: Path) -> tuple[Pairs, list[tuple[str, ...]]]:
    """Return scenes with true captions, and the events of each."""
    folder.mkdir()
    found = Parallel(n_jobs=-1)(
        delayed(write_scene)(folder, number) for number in range(N_SCENES + N_NEW_SCENES)
    )
    table = [{"audio": path, "text": caption} for path, caption, _ in found]
    return read_pairs(table), [kinds for *_, kinds in found]


def words_of(texts: Sequence[str]) -> list[str]:
    """Return the different words of texts."""
    return sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text.lower())})


def names(caption: str, kind: str) -> bool:
    """Tell whether a caption has one of the words for what makes a sound of some kind."""
    said = f" {' '.join(re.findall(r'[a-z]+', caption.lower()))} "
    subjects = (subject for clause in find_event(kind).clauses for subject in clause.subjects)
    return any(
        f" {' '.join(re.findall('[a-z]+', subject.lower()))} " in said for subject in subjects
    )


def share_named(captions: Sequence[str], events: Sequence[Sequence[str]]) -> Estimate:
    """Return the mean share of a scene's events that its caption names, with an interval."""
    both = zip(captions, events, strict=True)
    shares = np.array([np.mean([names(text, kind) for kind in kinds]) for text, kinds in both])
    rng = np.random.default_rng(0)
    means = shares[rng.integers(len(shares), size=(2000, len(shares)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(shares.mean()), float(low), float(high))


class Tiny:
    """The data of the tiny model, encoded, and its language model."""

    def __init__(self, here: Path) -> None:
        from random_checkpoints import qwen2

        self.here = here
        write_demo(here / "demo", n_jobs=-1)
        self.recipe: Recipe = recipe_from(
            {
                "name": "tiny",
                "spaces": SPACES,
                "systems": {"alm": {"kind": "audio-language-model", "tokens": TOKENS}},
            },
            "the benchmark",
        )
        scenes, events = write_scenes(here / "scenes")
        self.splits = {
            name: read_pairs(here / "demo", name) for name in ("train", "validation", "test")
        }
        subjects = [s for kind in EVENTS.values() for c in kind.clauses for s in c.subjects]
        texts = [
            *scenes.captions,
            *subjects,
            *(c for p in self.splits.values() for c in p.captions),
        ]
        self.languages = {
            deviation: str(
                qwen2.write(
                    here / f"language-{deviation}",
                    words_of(texts),
                    hidden_size=64,
                    intermediate_size=128,
                    initializer_range=deviation,
                )
            )
            for deviation in {*INITIAL.values()}
        }
        self.scenes = scenes.take(range(N_SCENES))
        self.new_scenes = scenes.take(range(N_SCENES, N_SCENES + N_NEW_SCENES))
        self.events = events[N_SCENES:]
        settings: dict[str, Any] = {"store": here / "store", "n_jobs": -1}
        self.encoder = Scorer(self.recipe, **settings)
        self.teacher = Scorer.label_free(self.recipe, **settings).fit(self.scenes)
        self.builder = CaptionedSequenceBuilder(TOKENS).fit(self.encoder.embeddings(self.scenes))
        self.sequences = {name: self.read(pairs) for name, pairs in self.splits.items()}

    def settings(self, name: str, seed: int) -> dict[str, Any]:
        """Return the settings of a configuration's models."""
        language = self.languages[INITIAL[name]]
        return {"language_model": language, **TINY, "random_state": seed}

    def read(self, pairs: Pairs) -> CaptionedSequences:
        """Return the sequences of pairs beside their captions."""
        return self.builder.transform(self.encoder.embeddings(pairs))

    def weights(self, model: Any, name: str) -> str:
        """Save the weights of a stage for the next."""
        from safetensors.numpy import save_file

        path = self.here / f"{name}.safetensors"
        save_file({key: np.array(array) for key, array in model.weights_.items()}, path)
        return str(path)


def stages(tiny: Tiny, seed: int) -> Iterator[tuple[str, Any]]:
    """Train the first two stages; yield captioning, and where the third may begin."""
    settings = tiny.settings("stages 1 + 2 + 3", seed)
    captioner = AudioCaptioner(**settings, **CAPTIONING).fit(tiny.read(tiny.scenes))
    yield "captioner", captioner
    yield "stage 3", None
    first = tiny.weights(captioner, f"captioning-{seed}")
    pairs = with_wrong_captions(tiny.scenes, 1, random_state=seed)
    labels = pseudo_label(pairs, tiny.teacher)
    sequences, clips = tiny.read(pairs), [*map(str, pairs.audio)]
    for name, initial in (("stages 2 + 3", None), ("stages 1 + 2 + 3", first)):
        settings = tiny.settings(name, seed)
        model = AudioLanguageModelRegressor(**settings, **PSEUDO_LABELS, initial=initial)
        model.fit(sequences, labels, groups=clips)
        yield name, model


def captioning_row(tiny: Tiny, seed: int, captioner: AudioCaptioner) -> list[object]:
    """Return what the captions of new scenes name."""
    written = captioner.write(tiny.read(tiny.new_scenes))
    shuffled = np.random.default_rng(seed).permutation(len(written))
    others = [written[row] for row in shuffled]
    losses = captioner.validation_loss_
    return [
        seed,
        float(losses[0]),
        float(losses.min()),
        share_named(written, tiny.events),
        share_named(others, tiny.events),
        float(caption_similarity(written, tiny.new_scenes.captions).mean()),
        float(caption_similarity(others, tiny.new_scenes.captions).mean()),
    ]


def learn(tiny: Tiny) -> None:
    """Train all stages with three seeds; print and write what was learned."""
    captioned: list[list[object]] = []
    scores: dict[tuple[str, int], list[Any]] = {}
    seconds: dict[str, float] = {}
    train = tiny.splits["train"]
    for seed in range(N_SEEDS):
        few = np.random.default_rng(seed).permutation(len(train))[:N_FEW]
        started = time.perf_counter()
        for name, model in stages(tiny, seed):
            if name == "captioner":
                captioned.append(captioning_row(tiny, seed, model))
                continue
            begin = None if model is None else tiny.weights(model, f"{name}-{seed}")
            if model is not None:
                without = model.predict(tiny.sequences["test"])
                kept = name.removesuffix(" + 3").replace("stages 2", "stage 2")
                scores.setdefault((f"{kept} only", 0), []).append(without)
            for rows in (few, np.arange(len(train))):
                last = AudioLanguageModelRegressor(
                    **tiny.settings(name, seed),
                    **SCORES,
                    learning_rate=LAST_RATE[name],
                    initial=begin,
                )
                y = np.asarray(train.scores)[rows]
                groups = [train.captions[row] for row in rows]
                last.fit(tiny.sequences["train"][rows], y, groups=groups)
                validated = srcc(
                    tiny.splits["validation"].scores, last.predict(tiny.sequences["validation"])
                )
                found = last.predict(tiny.sequences["test"])
                scores.setdefault((name, len(rows)), []).append(found)
                tried = f"seed {seed}, {name}, {len(rows)} scores, epoch {last.best_epoch_}"
                print(f"{tried}: {validated:.3f} on validation", flush=True)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
            started = time.perf_counter()
    header = [
        "seed",
        "loss, first epoch",
        "loss, best",
        "events named",
        "by another clip's caption",
    ]
    report(
        "audio_language_captions",
        f"Captions of {N_NEW_SCENES} new scenes by a tiny model, trained on {N_SCENES}",
        [*header, "similarity", "of another clip's caption"],
        captioned,
    )
    print(seconds)
    write_scores(tiny, scores)


def write_scores(tiny: Tiny, scores: dict[tuple[str, int], list[Any]]) -> None:
    """Print and write test figures of the configurations, and their gains."""
    test = tiny.splits["test"]
    y = np.asarray(test.scores)
    for n in (N_FEW, len(tiny.splits["train"])):
        members = scores["stages 1 + 2 + 3", n], scores["stages 2 + 3", n]
        scores["ranks of both", n] = [rank_average([*pair]) for pair in zip(*members, strict=True)]
    scores["teacher", 0] = [tiny.teacher.score(test)]
    rows = []
    for (name, n), found in scores.items():
        alone = scores.get(("stage 3", n))
        result = Result.from_scores(
            name,
            "test",
            "audio-language-model",
            y,
            found,
            reference_scores=None if alone is None or name == "stage 3" else alone,
            groups=test.captions,
        )
        each = [srcc(y, one) for one in found]
        rows.append([name, n, result.evaluation.srcc, min(each), max(each), result.difference])
    report(
        "audio_language_model",
        f"A tiny audio language model from scratch on the demo's test set, {N_SEEDS} seeds",
        ["configuration", "human scores", "SRCC", "lowest", "highest", "gain over stage 3 alone"],
        rows,
    )


def full_pairs(n_pairs: int) -> CaptionedSequences:
    """Return random tokens of BEATs's shape, and captions of usual length."""
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(100, 768)).astype(np.float16) for _ in range(n_pairs)]
    words = [f"[{number}]" for number in range(1000)]
    captions = [" ".join(rng.choice(words, WORDS_A_CAPTION)) for _ in range(n_pairs)]
    return CaptionedSequences(clips, captions)


def full_size(folder: str, tuning: str, micro_batch: int, recomputes: int) -> None:
    """Take one training step and score one batch; print seconds, MiB and numbers trained."""
    from xacle_stack.systems import training

    steps: list[float] = []
    step = training._Run._train_batch

    def timed(run: Any, batch: Any) -> Any:
        started = time.perf_counter()
        loss = step(run, batch)
        steps.append(time.perf_counter() - started)
        return loss

    training._Run._train_batch = timed  # type: ignore[method-assign]
    X = full_pairs(26)  # ten of them are held out
    model = AudioLanguageModelRegressor(
        folder,
        **FULL,
        tuning=tuning,
        micro_batch=micro_batch,
        gradient_checkpointing=bool(recomputes),
        precision="float32",
        epochs=1,
        random_state=0,
    ).fit(X, np.random.default_rng(1).uniform(0, 10, size=len(X)))
    peak = peak_mib()
    started = time.perf_counter()
    model.predict(X[:16])
    scoring_s = time.perf_counter() - started
    figures = {
        "step_s": steps[0],
        "peak_mib": peak,
        "scoring_s": scoring_s,
        "trained": float(model.n_parameters_),
        "all": float(sum(array.size for array in model.weights_.values())),
    }
    print(json.dumps(figures))


def kept_bytes(root: Path, n_layers: int, tuning: str, precision: str, n_rows: int) -> int:
    """Return what a pass of the real widths with few layers keeps for the gradients."""
    import torch
    from random_checkpoints import qwen2

    from xacle_stack.systems.audio_language_network import audio_language_network
    from xacle_stack.systems.language_model import read_language_model

    folder = root / str(n_layers)
    if not folder.exists():
        widths = ("hidden_size", "intermediate_size", "num_attention_heads")
        settings = {name: qwen2.CONFIG[name] for name in widths}
        qwen2.write(folder, **settings, num_hidden_layers=n_layers)
    language, _ = read_language_model(str(folder))
    network = audio_language_network(language, 768, dropout=0.1, head="mlp")
    network.prepare_training(tuning, 8, recomputes=False)
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    audio = torch.randn(n_rows, 100, 768)
    tokens = torch.zeros(n_rows, N_POSITIONS - 103, dtype=torch.long)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        network(audio, tokens, torch.ones_like(tokens))
    return sum(storage.nbytes() for storage in kept.values())


def kept_of_a_row(root: Path, tuning: str, precision: str) -> tuple[float, float]:
    """Return the bytes that one row keeps: in a layer, and before and after all layers."""
    one, two = (
        (kept_bytes(root, n, tuning, precision, 4) - kept_bytes(root, n, tuning, precision, 2)) / 2
        for n in (1, 2)
    )
    return two - one, 2 * one - two


def computed_gib(
    tuning: str, precision: str, n_rows: int, recomputes: bool, kept: tuple[float, float]
) -> float:
    """Return what training takes: weights, gradients, AdamW's two averages, and activations.

    In bfloat16 the matrices have a copy of two bytes a number.  With recomputing, a layer keeps its
    input, and one layer at a time all.
    """
    of_layer, of_others = kept
    of_input = 4 * 896 * N_POSITIONS
    layers = N_LAYERS * of_input + of_layer if recomputes else N_LAYERS * of_layer
    copies = 2 * (N_PARAMETERS - N_TABLE) if precision == "bfloat16" else 0
    weights = 4 * (N_PARAMETERS + (N_LORA if tuning == "lora" else 0))
    return (weights + 12 * N_TRAINED[tuning] + copies + n_rows * (layers + of_others)) / 2**30


def on_gpus() -> None:
    """Print and write what GPUs of some sizes can train, by computation."""
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for tuning in N_TRAINED:
            kept = kept_of_a_row(Path(folder), tuning, "bfloat16")
            for recomputes in (False, True):
                needed = {
                    n: GPU_OTHER_GIB + computed_gib(tuning, "bfloat16", n, recomputes, kept)
                    for n in MICRO_BATCHES
                }
                fits = [max((n for n in needed if needed[n] <= gib), default=0) for gib in GPU_GIB]
                sizes = [needed[n] for n in (1, 4, 16)]
                rows.append([tuning, "yes" if recomputes else "no", *sizes, *fits])
    header = ["tuning", "recomputes", "1 row, GiB", "4 rows, GiB", "16 rows, GiB"]
    report(
        "audio_language_memory",
        "Computed memory of training on a GPU in bfloat16, and the largest micro-batch that fits",
        [*header, *(f"fits {gib} GiB" for gib in GPU_GIB)],
        rows,
    )


def at_full_size() -> None:
    """Print and write times and memory of the full-size model, each in a process of its own."""
    from random_checkpoints import qwen2

    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        qwen2.write(Path(folder) / "full", full=True)
        for tuning, micro_batch, recomputes in RUNS:
            kept = kept_of_a_row(Path(folder), tuning, "float32")
            figures = in_a_process(__file__, f"{folder}/full", tuning, micro_batch, int(recomputes))
            rows.append(
                [
                    tuning,
                    micro_batch,
                    "yes" if recomputes else "no",
                    int(figures["trained"]),
                    figures["step_s"],
                    figures["scoring_s"],
                    figures["peak_mib"] / 1024,
                    computed_gib(tuning, "float32", micro_batch, recomputes, kept),
                ]
            )
    header = ["tuning", "micro-batch", "recomputes", "numbers trained", "step, s", "16 scores, s"]
    report(
        "audio_language_full_size",
        "Qwen2.5-0.5B with random weights on this CPU, float32, batches of 16",
        [*header, "peak, GiB", "computed, GiB"],
        rows,
    )


def main() -> None:
    """Run it."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        learn(Tiny(Path(folder)))
    on_gpus()
    at_full_size()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        full_size(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
