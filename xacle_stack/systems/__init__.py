"""Systems beside the stack, on cached arrays."""

from xacle_stack.systems.cosine import CosineRegressor
from xacle_stack.systems.ensemble import average, rank_average
from xacle_stack.systems.gate import GatedRegressor
from xacle_stack.systems.lstm import LSTMRegressor
from xacle_stack.systems.projection_head import ProjectionHeadRegressor
from xacle_stack.systems.transformer import TransformerRegressor

__all__ = [
    "CosineRegressor",
    "GatedRegressor",
    "LSTMRegressor",
    "ProjectionHeadRegressor",
    "TransformerRegressor",
    "average",
    "rank_average",
]
