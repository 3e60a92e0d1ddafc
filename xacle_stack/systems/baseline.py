"""What the organisers' two baselines have in common: targets, loss and learning rate."""

from __future__ import annotations

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.systems.losses import (
    centred,
    class_balance_weights,
    clipped_mse,
    contrastive,
    uncentred,
)
from xacle_stack.systems.neural import NeuralRegressor
from xacle_stack.systems.training import Tensor


class BaselineRegressor(NeuralRegressor):
    """A regressor that minimises ``clipped MSE + ½ contrastive`` on ``(y − 5) / 5``.

    Both losses are weighted to balance rare and frequent scores (see
    :mod:`xacle_stack.systems.losses`), separately for the training rows and the rows held out.  The
    learning rate is halved whenever the validation loss no longer falls.

    References
    ----------
    Okamoto et al. 2026, XACLE challenge; the organisers' code of 2026 and 2027.
    """

    _schedule = "plateau"

    def _loss(self, predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return clipped_mse(predicted, target, weights) + 0.5 * contrastive(
            predicted, target, weights
        )

    def _targets(self, scores: FloatArray) -> FloatArray:
        return centred(scores)

    def _score_weights(self, scores: FloatArray, rows: IntArray) -> FloatArray:
        return class_balance_weights(scores[rows])

    def _to_scores(self, predicted: FloatArray) -> FloatArray:
        return uncentred(predicted)
