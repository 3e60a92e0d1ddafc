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

N_SCENES, N_NEW_SCENES, N_SEEDS, N_FEW = 2_500, 300, 3, 100
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
CAPTIONING = {"epochs": 10, "learning_rate": 2e-3}
PSEUDO_LABELS = {"epochs": 8, "learning_rate": 1e-3}
SCORES = {"epochs": 15, "patience": 8}
LAST_RATE = {"stage 3": 1e-3, "stages 2 + 3": 1e-4, "stages 1 + 2 + 3": 1e-4}
# Another stream than the demo's contents, sounds and listeners.
_STREAM = 9
FULL = {"n_audio_tokens": 100, "max_tokens": 256, "device": "cpu", "batch_size": 16}
N_PARAMETERS = 494_032_768 + 10_103_936 + 787_713 + 3 * 896
WORDS_A_CAPTION = 4  # of three tokens each
# What is trained, rows at once, and whether activations are computed again.
RUNS = [("full", 4, False), ("full", 16, True), ("frozen", 16, False)]
LORA_PARAMETERS = 8 * 24 * (2 * (896 + 896) + 2 * (896 + 128) + 3 * (896 + 4864))


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
        language = qwen2.write(
            here / "language", words_of(texts), hidden_size=64, intermediate_size=128
        )
        self.settings = {"language_model": str(language), **TINY}
        self.scenes = scenes.take(range(N_SCENES))
        self.new_scenes = scenes.take(range(N_SCENES, N_SCENES + N_NEW_SCENES))
        self.events = events[N_SCENES:]
        settings: dict[str, Any] = {"store": here / "store", "n_jobs": -1}
        self.encoder = Scorer(self.recipe, **settings)
        self.teacher = Scorer.label_free(self.recipe, **settings).fit(self.scenes)
        self.builder = CaptionedSequenceBuilder(TOKENS).fit(self.encoder.embeddings(self.scenes))
        self.sequences = {name: self.read(pairs) for name, pairs in self.splits.items()}

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
    settings = {**tiny.settings, "random_state": seed}
    captioner = AudioCaptioner(**settings, **CAPTIONING).fit(tiny.read(tiny.scenes))
    yield "captioner", captioner
    yield "stage 3", None
    first = tiny.weights(captioner, f"captioning-{seed}")
    pairs = with_wrong_captions(tiny.scenes, random_state=seed)
    labels = pseudo_label(pairs, tiny.teacher)
    sequences, clips = tiny.read(pairs), [*map(str, pairs.audio)]
    for name, initial in (("stages 2 + 3", None), ("stages 1 + 2 + 3", first)):
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
                scores.setdefault((f"{name.removesuffix(' + 3')} only", 0), []).append(without)
            for rows in (few, np.arange(len(train))):
                last = AudioLanguageModelRegressor(
                    **tiny.settings,
                    **SCORES,
                    learning_rate=LAST_RATE[name],
                    initial=begin,
                    random_state=seed,
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


def computed_gib(tuning: str, micro_batch: int, recomputes: bool) -> float:
    """Return what training takes: weights, gradients, AdamW's two averages, and activations.

    A layer of the language model keeps about 34 numbers for each of its hidden ones (two norms,
    attention, and a feed-forward part of 5.4 times the width with its gate); with recomputing it
    keeps its input, and one layer at a time all.
    """
    n_positions = 3 * WORDS_A_CAPTION + 103
    n_hidden, n_layers, a_layer = 896, 24, 34
    trained = {"full": N_PARAMETERS, "frozen": 10_894_337, "lora": 10_894_337 + LORA_PARAMETERS}
    kept = n_layers + a_layer if recomputes else n_layers * a_layer
    activations = micro_batch * n_positions * n_hidden * kept
    return 4 * (N_PARAMETERS + 3 * trained[tuning] + activations) / 2**30


def at_full_size() -> None:
    """Print and write times and memory of the full-size model, each in a process of its own."""
    from random_checkpoints import qwen2

    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        qwen2.write(Path(folder), full=True)
        for tuning, micro_batch, recomputes in RUNS:
            figures = in_a_process(__file__, folder, tuning, micro_batch, int(recomputes))
            rows.append(
                [
                    tuning,
                    micro_batch,
                    "yes" if recomputes else "no",
                    int(figures["trained"]),
                    figures["step_s"],
                    figures["scoring_s"],
                    figures["peak_mib"] / 1024,
                    computed_gib(tuning, micro_batch, recomputes),
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
    at_full_size()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        full_size(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
