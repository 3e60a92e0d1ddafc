import numpy as np
import pytest

from xacle_stack.errors import FeatureError
from xacle_stack.features.agreement import agreement_blocks, agreement_features


@pytest.mark.parametrize("n_spaces", [1, 2, 3, 5])
def test_agreement_features_are_the_formula(rng: np.random.Generator, n_spaces: int) -> None:
    c, p = rng.uniform(-1, 1, size=(6, n_spaces)), rng.normal(size=(n_spaces, 6, 2))
    features = agreement_features(c, list(p))
    assert features.shape == (6, sum(agreement_blocks(n_spaces, 2).values()))
    couples = [(s, t) for s in range(n_spaces) for t in range(s + 1, n_spaces)]
    for row in range(6):
        expected = [*c[row], *(abs(c[row, s] - c[row, t]) for s, t in couples)]
        expected += [value for s in range(n_spaces) for value in p[s, row]]
        expected += [value for s, t in couples for value in p[s, row] * p[t, row]]
        expected += [value for s, t in couples for value in abs(p[s, row] - p[t, row])]
        np.testing.assert_allclose(features[row], expected)


def test_alone_equals_together(rng: np.random.Generator) -> None:
    c, p = rng.uniform(-1, 1, size=(6, 3)), rng.normal(size=(3, 6, 4))
    together = agreement_features(c, list(p))
    for row in range(6):
        alone = agreement_features(c[[row]], [q[[row]] for q in p])
        np.testing.assert_array_equal(alone[0], together[row])


def test_bad_input_is_told(rng: np.random.Generator) -> None:
    c, p = rng.uniform(size=(6, 2)), rng.normal(size=(2, 6, 4))
    with pytest.raises(FeatureError, match=r"cosines of shape \(6, 2\) but 1 projections"):
        agreement_features(c, [p[0]])
    with pytest.raises(FeatureError, match=r"projections of shapes \[\(5, 4\), \(6, 4\)\]"):
        agreement_features(c, [p[0], p[1, :5]])
    p[1, 3, 0] = np.nan
    with pytest.raises(FeatureError, match=r"1 row.*finite.* row 3"):
        agreement_features(c, list(p))
