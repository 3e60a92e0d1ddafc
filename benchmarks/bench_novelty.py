"""What novelty says of pairs like those in training, and of others; and what it costs.

In distribution about one pair in a hundred should be above 1.  Other data should be above the
pairs of the same data set (AUC), and a higher novelty should mean a larger error.
"""

import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from bench_sick import read_split
from report import real_data, report
from sklearn.metrics import roc_auc_score

from xacle_stack import FeatureBuilder, FeatureCache, PairEmbeddings, Scorer, Stacker, read_pairs
from xacle_stack.encoders import LoadedEncoders
from xacle_stack.experiment import fill_cache
from xacle_stack.features import Novelty
from xacle_stack.metrics import srcc
from xacle_stack.recipe import read_recipe
from xacle_stack.synth.demo import write_demo

RATE_HZ = 16_000
OTHER_SCRIPTS = [
    *("狗在叫", "下雨了", "一个人在说话", "汽车经过", "鸟儿在歌唱", "孩子们在笑", "门关上了"),
    *("собака лает", "идёт дождь", "человек говорит", "машина проезжает мимо", "птицы поют"),
    *(
        "犬が吠えている",
        "雨が降っている",
        "誰かがピアノを弾いている",
        "كلب ينبح",
        "강아지가 짖는다",
    ),
]
HEADER = ["fitted on", "scored", "pairs", "clips above 1", "captions above 1", "pairs above 1"]
HEADER += ["AUC", "SRCC with error"]


def main() -> None:
    """Run it."""
    recipe = read_recipe("mini")
    esc10 = real_data("esc10")
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        demo, store = write_demo(Path(folder) / "demo", n_jobs=-1), Path(folder) / "store"
        scorers, own = {}, {}
        for name, data, split in (("demo", demo, "test"), ("ESC-10", esc10, "validation")):
            fill_cache(data, recipe, store, n_jobs=-1)
            train, own[name] = (
                FeatureCache(store).load(read_pairs(data, s)) for s in ("train", split)
            )
            scorers[name] = Scorer(recipe, n_jobs=-1).fit(train)
        encoders = LoadedEncoders(recipe.encoders, device="cpu")
        for name, other in (("demo", "ESC-10"), ("ESC-10", "demo")):
            clips = list(own[name].pairs.audio[: len(OTHER_SCRIPTS)])
            captions = list(own[name].pairs.captions)
            shifted = {
                other: own[other],
                "captions in other scripts": PairEmbeddings.from_outputs(
                    encoders.encode_clips(clips), encoders.encode_captions(OTHER_SCRIPTS)
                ),
                "letters at random": PairEmbeddings.from_outputs(
                    encoders.encode_clips(clips), encoders.encode_captions(random_letters())
                ),
                "noise and silence": PairEmbeddings.from_outputs(
                    encoders.encode_clips(noises(), sample_rate_hz=RATE_HZ),
                    encoders.encode_captions(captions[: len(noises())]),
                ),
            }
            rows += compare(name, scorers[name].novelty_, own[name], shifted)
            error = np.abs(scorers[name].score(own[name]) - own[name].pairs.scores)
            rows[-len(shifted) - 1][-1] = srcc(error, scorers[name].novelty(own[name]))
            error = np.abs(scorers[name].score(own[other]) - own[other].pairs.scores)
            rows[-len(shifted)][-1] = srcc(error, scorers[name].novelty(own[other]))
    with h5py.File(real_data("sick_pairs.h5")) as file:
        spaces = sorted(file["spaces"])
        train, y_train = read_split(file, "train")
        test, y_test = read_split(file, "test")
    start = time.perf_counter()
    builder = FeatureBuilder(spaces)
    table = builder.fit_transform(train)
    stacker = Stacker(preset="paper", random_state=0, n_jobs=-1).fit(table, y_train)
    fitted = time.perf_counter()
    predicted = stacker.predict(builder.transform(test))
    scored = time.perf_counter()
    novelty = Novelty(spaces).fit(train)
    measured = time.perf_counter()
    of_test = novelty.measure(test)
    ended = time.perf_counter()
    rows += compare("SICK", novelty, test, {})
    rows[-1][-1] = srcc(np.abs(predicted - y_test), of_test)
    report("novelty", "Novelty of pairs, and whether it tells data apart", HEADER, rows)
    n_bytes = sum(kept.nbytes for kept in novelty.landmarks_.values())
    header = ["what", "paper", "novelty"]
    costs: list[list[object]] = [
        ["fit on 4,500 pairs, s", fitted - start, measured - scored],
        ["score, ms a pair", 1e3 * (scored - fitted) / 4927, 1e3 * (ended - measured) / 4927],
        ["size, MiB", None, n_bytes / 2**20],
    ]
    report("novelty_cost", "What novelty costs beside the preset paper (SICK)", header, costs)


def compare(
    fitted_on: str, novelty: Novelty, own: object, shifted: dict[str, object]
) -> list[list[object]]:
    """Return the rows of the pairs like those in training, and of others against them."""
    rows = []
    usual = novelty.measure(own)
    for name, pairs in {f"{fitted_on}, held out": own, **shifted}.items():
        sides = novelty.measure_sides(pairs)
        figures = sides.max(axis=1)
        auc = None
        if pairs is not own:
            is_other = np.repeat([0, 1], [len(usual), len(figures)])
            auc = float(roc_auc_score(is_other, np.concatenate([usual, figures])))
        shares = [*np.mean(sides > 1, axis=0).tolist(), float(np.mean(figures > 1))]
        rows.append([fitted_on, name, len(figures), *shares, auc, None])
    return rows


def random_letters() -> list[str]:
    """Return captions of letters that mean nothing, of one to six words."""
    rng = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    return [
        " ".join("".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(1 + number % 6))
        for number in range(len(OTHER_SCRIPTS))
    ]


def noises() -> list[np.ndarray]:
    """Return sounds that are no events: white and brown noise, silence, a sine, a click."""
    rng = np.random.default_rng(0)
    n_samples = 3 * RATE_HZ
    sine = np.sin(2 * np.pi * 440 * np.arange(n_samples) / RATE_HZ)
    return [
        0.1 * rng.normal(size=n_samples),
        1e-3 * np.cumsum(rng.normal(size=n_samples)),
        np.zeros(n_samples),
        0.3 * sine,
        np.eye(1, n_samples, RATE_HZ)[0],
    ]


if __name__ == "__main__":
    main()
