"""Every system in one table: on the demo data set and on ESC-10 `xacle-stack compare` does it.

The systems that need nothing but vectors are compared on SICK's pairs of sentences, too.

The embedded spaces stand for pretrained ones.  BYOL-A and RoBERTa, which the LSTM needs, have
random weights in the real formats (the test suite writes them), and it is trained once and briefly:
its figures show that it runs.  The audio language models begin with random weights, too, and with
two small layers; their pseudo-labels are those of the training clips that match their captions.
"""

import json
import re
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
from bench_sick import read_split
from pydantic import TypeAdapter
from report import RESULTS, ROOT, real_data, report

from xacle_stack import FeatureBuilder, Stacker
from xacle_stack._csv_table import csv_text
from xacle_stack.experiment import fill_cache, run_experiment
from xacle_stack.metrics import evaluate, srcc_gain
from xacle_stack.pairs import list_splits, read_pairs
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.results import Result
from xacle_stack.synth.demo import write_demo
from xacle_stack.systems.specs import AnySpec, CacheNames, EnsembleSpec

SPACES = ["mini-mfcc", "mini-mod", "mini-mel"]
SEEDS = 3
# These take long there: networks with published settings, and trees of these libraries.
NOT_ON_SICK = ["baseline 2027", "head, pairwise", "Trust-your-CLAP, gate none"]
NOT_ON_SICK += ["Trust-your-CLAP, gate train", "boosting, xgboost", "boosting, catboost"]
MATCH_SCORE = 7  # from here on a caption is taken for that of the clip
SMALL_DATA = {"optimizer": "adam", "learning_rate": 1e-3, "epochs": 40}
SYSTEMS: dict[str, dict[str, object]] = {
    "stack": {"kind": "stack"},
    "stack, whitened": {"kind": "stack", "features": {"n_whitened": 128}},
    "stack, gate": {"kind": "stack", "meta": "gate"},
    "paper": {"kind": "stack", "preset": "paper"},
    **{
        f"boosting, {library}": {"kind": "boosting", "library": library, "seeds": 1}
        for library in ("lightgbm", "xgboost", "catboost")
    },
    **{f"cosine, {space}": {"kind": "cosine", "space": space} for space in SPACES},
    **{
        f"Trust-your-CLAP, gate {gate}": {"kind": "transformer", "space": SPACES[0], "gate": gate}
        for gate in ("none", "train")
    },
    "SVR ensemble": {"kind": "svr-ensemble", "spaces_b": SPACES[:1]},
    "Trust-your-CLAP, Adam 1e-3": {"kind": "transformer", "space": SPACES[0], **SMALL_DATA},
    **{
        f"head, {loss}": {"kind": "projection-head", "loss": loss}
        for loss in ("mse", "listnet", "pairwise")
    },
    "baseline 2027": {"kind": "mlp"},
    "baseline 2027, Adam 1e-3": {"kind": "mlp", "learning_rate": 1e-3},
    "cross-attention, mini sequences": {
        "kind": "cross-attention",
        "seeds": 1,
        "frames": "mini-mel:frames",
        "text": "mini-mel:tokens",
        "width": 128,
        "hidden": 512,
        "learning_rate": 3e-4,
        "epochs": 20,
    },
    "ranks: stack + head": {"kind": "ensemble", "of": ["stack", "head, mse"]},
    "mean: stack + head": {"kind": "ensemble", "of": ["stack", "head, mse"], "method": "mean"},
}


def language_systems(root: Path, data: Path) -> dict[str, dict[str, object]]:
    """Return two audio language models; write the table and the words that they learn from."""
    from random_checkpoints import qwen2

    train = read_pairs(data, "train")
    captions = [c for split in list_splits(data) for c in read_pairs(data, split).captions]
    texts = " ".join(captions).lower()
    language = qwen2.write(
        root / "language", sorted({*re.findall(r"\w+|[^\w\s]+", texts)}), hidden_size=64
    )
    matched = np.flatnonzero(np.asarray(train.scores) >= MATCH_SCORE)
    table = [["audio", "text"], *([train.audio[row], train.captions[row]] for row in matched)]
    (root / "matched.csv").write_text(csv_text(table))
    alone = {
        "kind": "audio-language-model",
        "seeds": 1,
        "tokens": "mini-mel:frames",
        "language_model": str(language),
        "n_audio_tokens": 12,
        "max_tokens": 64,
        "precision": "float32",
        "batch_size": 32,
        "epochs": 20,
        "learning_rate": 3e-4,
    }
    stage = {"data": str(root / "matched.csv"), "epochs": 12, "learning_rate": 1e-3}
    return {
        "audio LM, scores only": alone,
        "audio LM, three stages": {**alone, "captioning": stage, "pseudo_labels": stage},
        "ranks: both audio LMs": {
            "kind": "ensemble",
            "of": ["audio LM, scores only", "audio LM, three stages"],
        },
    }


def recipe(root: Path, data: Path) -> Recipe:
    """Return the recipe, with random BYOL-A and RoBERTa where PyTorch is there to write them."""
    sys.path.insert(0, str(ROOT / "tests"))
    from random_checkpoints import choose

    choices = [choose(root, name) for name in ("byol-a", "roberta-large")]
    baseline = {"kind": "lstm", "epochs": 2, "learning_rate": 2e-4, "seeds": 1}
    settings = {
        "name": "systems",
        "seeds": SEEDS,
        "spaces": SPACES,
        "views": {SPACES[0]: 3},
        "systems": {
            **SYSTEMS,
            "LSTM, random frames, 2 epochs": baseline,
            **language_systems(root, data),
        },
        "checkpoints": {choice.name: choice.checkpoint for choice in choices},
        "code": {choice.name: choice.code for choice in choices if choice.code},
    }
    return recipe_from(settings, "the benchmark")


def main() -> None:
    """Run it."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_demo(here / "demo", n_jobs=-1)
        for name, data in (("demo", here / "demo"), ("esc10", real_data("esc10"))):
            settings = recipe(here / f"checkpoints-{name}", data)
            fill_cache(data, settings, here / "store", n_jobs=-1, progress=False)
            out = here / f"run-{name}"
            *_, results = run_experiment(
                data,
                settings,
                settings.compared_systems,
                here / "store",
                out,
                n_jobs=-1,
                progress=True,
            )
            shutil.copy(out / "results.md", RESULTS / f"systems-{name}-comparison.md")
            for plot in out.glob("*.png"):
                shutil.copy(plot, RESULTS / f"systems-{name}-{plot.name}")
            show(name, results)
    on_sick()


def on_sick() -> None:
    """Compare the systems that need only vectors on SICK, with its scores on a scale of 0–10."""
    with h5py.File(real_data("sick_pairs.h5")) as file:
        spaces = sorted(file["spaces"], key=["tokens", "layer2", "words", "chars"].index)
        (train, y), (test, y_test) = (read_split(file, split) for split in ("train", "test"))
    y, y_test = (2.5 * (scores - 1) for scores in (y, y_test))
    renamed = dict(zip(SPACES, spaces, strict=False))
    names = CacheNames({space: space for space in spaces}, {})
    rows = []
    best: np.ndarray | None = None
    for name, settings in SYSTEMS.items():
        text = json.dumps(settings)
        for mini, space in renamed.items():
            text = text.replace(mini, space)
        spec = TypeAdapter(AnySpec).validate_json(text)
        if isinstance(spec, EnsembleSpec) or spec.clip_sequences or name in NOT_ON_SICK:
            continue
        builder = spec.builder(names, FeatureBuilder(spaces))
        start = time.perf_counter()
        table = builder.fit_transform(train)
        regressor = spec.regressor(names, Stacker(n_jobs=-1, random_state=0))
        if "random_state" in regressor.get_params():
            regressor.set_params(random_state=0)
        regressor.fit(table, y)
        fitted = time.perf_counter()
        predicted = regressor.predict(builder.transform(test))
        scored = time.perf_counter()
        best = predicted if best is None else best
        evaluation = evaluate(y_test, predicted)
        gain = None if predicted is best else srcc_gain(y_test, predicted, best)
        seconds = round(fitted - start, 1), round(1e3 * (scored - fitted) / len(y_test), 3)
        rows.append([name, evaluation.srcc, evaluation.mse, gain, *seconds])
        print(*rows[-1], flush=True)
    header = ["system", "test SRCC", "test MSE", "gain over the stack", "fit, s", "score, ms/pair"]
    report("systems_sick", "Systems on SICK, one seed, scores on a scale of 0–10", header, rows)


def show(name: str, results: list[Result]) -> None:
    """Print and write the table of the last split."""
    split = results[-1].split
    rows = [
        [
            result.system,
            result.n_seeds,
            result.evaluation.srcc,
            result.evaluation.mse,
            result.probability_better,
            round(result.fit_s, 1),
            round(result.score_ms, 3),
            result.n_parameters,
        ]
        for result in results
        if result.split == split
    ]
    header = ["system", "seeds", f"{split} SRCC", f"{split} MSE", "P(better than the stack)"]
    header += ["fit, s", "score, ms/pair", "parameters"]
    report(f"systems_{name}", f"Systems on {name}, means over seeds", header, rows)


if __name__ == "__main__":
    main()
