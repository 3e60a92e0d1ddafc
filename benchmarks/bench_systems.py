"""Every system in one table, on the demo data set and on ESC-10: `xacle-stack compare` does it.

The embedded spaces stand for pretrained ones.  BYOL-A and RoBERTa, which the LSTM needs, have
random weights in the real formats (the test suite writes them), and it is trained once and briefly:
its figures show that it runs.
"""

import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from report import RESULTS, ROOT, real_data, report

from xacle_stack.experiment import fill_cache, run_experiment
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.results import Result
from xacle_stack.synth.demo import write_demo

SPACES = ["mini-mfcc", "mini-mod", "mini-mel"]
SMALL_DATA = {"optimizer": "adam", "learning_rate": 1e-3, "epochs": 40}
SYSTEMS: dict[str, dict[str, object]] = {
    "stack": {"kind": "stack"},
    "paper": {"kind": "stack", "preset": "paper"},
    **{f"cosine, {space}": {"kind": "cosine", "space": space} for space in SPACES},
    **{
        f"Trust-your-CLAP, gate {gate}": {"kind": "transformer", "space": SPACES[0], "gate": gate}
        for gate in ("none", "train")
    },
    "Trust-your-CLAP, Adam 1e-3": {"kind": "transformer", "space": SPACES[0], **SMALL_DATA},
    **{
        f"head, {loss}": {"kind": "projection-head", "loss": loss}
        for loss in ("mse", "listnet", "pairwise")
    },
    "ranks: stack + head": {"kind": "ensemble", "of": ["stack", "head, mse"]},
    "mean: stack + head": {"kind": "ensemble", "of": ["stack", "head, mse"], "method": "mean"},
}


def recipe(root: Path) -> Recipe:
    """Return the recipe, with random BYOL-A and RoBERTa where PyTorch is there to write them."""
    sys.path.insert(0, str(ROOT / "tests"))
    from random_checkpoints import choose

    choices = [choose(root, name) for name in ("byol-a", "roberta-large")]
    baseline = {"kind": "lstm", "epochs": 2, "learning_rate": 2e-4, "seeds": 1}
    settings = {
        "name": "systems",
        "spaces": SPACES,
        "views": {SPACES[0]: 3},
        "systems": {**SYSTEMS, "LSTM, random frames, 2 epochs": baseline},
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
        settings = recipe(here / "checkpoints")
        for name, data in (("demo", here / "demo"), ("esc10", real_data("esc10"))):
            fill_cache(data, settings, here / "store", n_jobs=-1, progress=False)
            out = here / name
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
