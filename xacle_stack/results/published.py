"""The results that are published for the XACLE challenges, to stand beside one's own.

The development data of the second challenge are the pairs of the first one, so that the results of
both are shown beside each other, whichever folder the pairs come from.  Pairs that a challenge adds
have other ids, and nothing is shown beside them.

Sources: Li, Li and Shinozaki 2026 for the stacks and single models; Okamoto et al. 2026 for the
baseline and the other teams; Niizumi et al. 2026 for Trust-your-CLAP; the organisers' repository
XACLE_2027_baselinemodel for the baseline of 2027; github.com/Snehitc/EnsembleSVR-XACLE for the SVR
ensemble, which came second; arXiv:2602.00604 for the stages of TMU.
"""

import math

from xacle_stack.metrics import Estimate, Evaluation
from xacle_stack.pairs import Pairs
from xacle_stack.results.record import PUBLISHED_KIND, Result

# The clips of a split are files named by these numbers.
_FILE_NUMBERS = {"validation": range(7500, 10500), "test": range(10500, 13500)}

# SRCC, LCC, KTAU and MSE, or only the first.
_ROWS: dict[str, dict[str, tuple[float, ...]]] = {
    "validation": {
        "first of the challenge": (0.6680, 0.6800, 0.4860, 3.3340),
        "SVR ensemble": (0.664, 0.680, 0.483, 3.122),
        "TMU, rank average": (0.6780, 0.6716, 0.4939, 8.3798),
        "TMU, stages 1 + 2 + 3": (0.674,),
        "TMU, stages 2 + 3": (0.669,),
        "TMU, stage 3": (0.574,),
        "TMU, stages 1 + 2": (0.598,),
        "TMU, stage 1": (0.352,),
        "TMU, teacher": (0.602,),
        "3-CLAP stack (rank target)": (0.6476, 0.6718, 0.4698, 7.1189),
        "2-CLAP stack (rank target)": (0.6439, 0.6671, 0.4664, 7.0548),
        "CLAP rank ensemble": (0.6061, 0.6357, 0.4358, 7.0520),
        "LAION unfused single": (0.5988, 0.6286, 0.4302, 3.4297),
        "MS-CLAP single": (0.5979, 0.6135, 0.4288, 3.5347),
        "LAION fused single": (0.5631, 0.5926, 0.4016, 3.6744),
        "organisers' baseline, 2027": (0.5844, 0.5995, 0.4186, 3.6368),
        "organisers' baseline, 2026": (0.3844, 0.3961, 0.2646, 4.8361),
    },
    "test": {
        "first of the challenge": (0.6402, 0.6873, 0.4612, 3.0111),
        "SVR ensemble": (0.638, 0.685, 0.460, 2.826),
        "TMU, rank average": (0.6327, 0.6426, 0.4564, 9.5999),
        "TMU, stages 1 + 2 + 3": (0.625,),
        "TMU, stages 2 + 3": (0.626,),
        "Trust-your-CLAP": (0.5672, 0.6346, 0.4021, 3.9274),
        "3-CLAP stack": (0.5934, 0.6507, 0.4233, 2.9418),
        "2-CLAP stack": (0.5852, 0.6396, 0.4165, 3.0153),
        "MS-CLAP single": (0.5521, 0.6035, 0.3901, 3.2500),
        "LAION unfused single": (0.5361, 0.5842, 0.3784, 3.3782),
        "LAION fused single": (0.5083, 0.5530, 0.3570, 3.5872),
        "BEATs only": (0.2584, 0.2686, 0.1747, 5.7734),
        "organisers' baseline, 2027": (0.5648, 0.6142, 0.3997, 3.1847),
        "organisers' baseline, 2026": (0.3345, 0.3420, 0.2290, 4.8110),
    },
}


def _published(system: str, split: str, values: tuple[float, ...]) -> Result:
    unknown = (math.nan,) * (4 - len(values))
    srcc, lcc, ktau, mse = (Estimate(x, math.nan, math.nan) for x in (*values, *unknown))
    n_pairs = len(_FILE_NUMBERS[split])
    evaluation = Evaluation(srcc, lcc, ktau, mse, n_pairs=n_pairs, confidence=0.95)
    return Result(system, split, PUBLISHED_KIND, evaluation)


PUBLISHED = tuple(
    _published(system, split, values)
    for split, rows in _ROWS.items()
    for system, values in rows.items()
)


def published_for(*splits: Pairs) -> list[Result]:
    """Return the published results for splits of the XACLE data set, and none for other data.

    Examples
    --------
    >>> published_for(Pairs("test", ("dog.wav",), (), ("a dog barks",)))
    []
    """
    found: list[Result] = []
    for pairs in splits:
        numbers = _FILE_NUMBERS.get(pairs.split, range(0))
        if pairs.ids == tuple(f"{number:05d}.wav" for number in numbers):
            found += [row for row in PUBLISHED if row.split == pairs.split]
    return found
