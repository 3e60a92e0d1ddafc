"""Systems beside the stack: the published ones of the challenge, and averages of systems."""

from xacle_stack.systems.audio_language_model import AudioLanguageModelRegressor
from xacle_stack.systems.captioner import AudioCaptioner
from xacle_stack.systems.cosine import CosineRegressor
from xacle_stack.systems.cross_attention import CrossAttentionRegressor
from xacle_stack.systems.ensemble import average, rank_average
from xacle_stack.systems.gate import GatedRegressor
from xacle_stack.systems.label_free import CosineMean
from xacle_stack.systems.lstm import LSTMRegressor
from xacle_stack.systems.mlp import VectorMLPRegressor
from xacle_stack.systems.projection_head import ProjectionHeadRegressor
from xacle_stack.systems.svr import SupportVectors, SVREnsembleRegressor
from xacle_stack.systems.transformer import TransformerRegressor

__all__ = [
    "SAVED_TYPES",
    "AudioCaptioner",
    "AudioLanguageModelRegressor",
    "CosineMean",
    "CosineRegressor",
    "CrossAttentionRegressor",
    "GatedRegressor",
    "LSTMRegressor",
    "ProjectionHeadRegressor",
    "SVREnsembleRegressor",
    "SupportVectors",
    "TransformerRegressor",
    "VectorMLPRegressor",
    "average",
    "rank_average",
]

# The types of this package that a saved model may hold.
SAVED_TYPES: tuple[str, ...] = tuple(
    f"{saved.__module__}.{saved.__qualname__}"
    for saved in (
        AudioCaptioner,
        AudioLanguageModelRegressor,
        CosineMean,
        CosineRegressor,
        CrossAttentionRegressor,
        GatedRegressor,
        LSTMRegressor,
        ProjectionHeadRegressor,
        SVREnsembleRegressor,
        SupportVectors,
        TransformerRegressor,
        VectorMLPRegressor,
    )
)
