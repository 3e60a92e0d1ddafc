"""Predict how well a sound matches a text, as human listeners would score it.

The names below are the public interface; each is imported when it is first used, so that
``import xacle_stack`` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xacle_stack.audio import read_clip
    from xacle_stack.cache import CachedPairs, FeatureCache
    from xacle_stack.captions import caption_similarity, write_captions
    from xacle_stack.cross_validation import CrossValidation, cross_validate
    from xacle_stack.encoders import Encoder, EncoderChoice, EncoderInfo
    from xacle_stack.errors import XacleStackError
    from xacle_stack.extract import extract_embeddings
    from xacle_stack.features import (
        CaptionedSequenceBuilder,
        CaptionedSequences,
        FeatureBuilder,
        PairEmbeddings,
        PairSequences,
        SequenceBuilder,
        VectorBuilder,
        agreement_features,
        cosine_similarity,
        pair_features,
    )
    from xacle_stack.listeners import ListenerModel
    from xacle_stack.metrics import Evaluation, evaluate
    from xacle_stack.model_file import load_card, load_model, save_model
    from xacle_stack.pairs import Pairs, list_splits, read_generated, read_pairs, read_splits
    from xacle_stack.pseudo_labels import pseudo_label, with_wrong_captions
    from xacle_stack.rating import Rating, rate
    from xacle_stack.scorer import Scorer
    from xacle_stack.stacking import BoostedTrees, Selection, Stacker, select_stack
    from xacle_stack.submission import read_predictions, write_predictions
    from xacle_stack.systems import (
        AudioCaptioner,
        AudioLanguageModelRegressor,
        CosineMean,
        CrossAttentionRegressor,
        GatedRegressor,
        LSTMRegressor,
        ProjectionHeadRegressor,
        TransformerRegressor,
        VectorMLPRegressor,
        average,
        rank_average,
    )
    from xacle_stack.table import FeatureTable

_HOMES = {
    "read_clip": "audio",
    "CachedPairs": "cache",
    "FeatureCache": "cache",
    "caption_similarity": "captions",
    "write_captions": "captions",
    "CrossValidation": "cross_validation",
    "cross_validate": "cross_validation",
    "Encoder": "encoders",
    "EncoderChoice": "encoders",
    "EncoderInfo": "encoders",
    "XacleStackError": "errors",
    "extract_embeddings": "extract",
    "CaptionedSequenceBuilder": "features",
    "CaptionedSequences": "features",
    "FeatureBuilder": "features",
    "FeatureTable": "table",
    "PairEmbeddings": "features",
    "PairSequences": "features",
    "SequenceBuilder": "features",
    "VectorBuilder": "features",
    "agreement_features": "features",
    "cosine_similarity": "features",
    "pair_features": "features",
    "ListenerModel": "listeners",
    "Evaluation": "metrics",
    "evaluate": "metrics",
    "Pairs": "pairs",
    "list_splits": "pairs",
    "pseudo_label": "pseudo_labels",
    "read_generated": "pairs",
    "read_pairs": "pairs",
    "read_splits": "pairs",
    "Rating": "rating",
    "rate": "rating",
    "Scorer": "scorer",
    "BoostedTrees": "stacking",
    "Selection": "stacking",
    "Stacker": "stacking",
    "select_stack": "stacking",
    "load_card": "model_file",
    "load_model": "model_file",
    "save_model": "model_file",
    "read_predictions": "submission",
    "write_predictions": "submission",
    "AudioCaptioner": "systems",
    "AudioLanguageModelRegressor": "systems",
    "CosineMean": "systems",
    "CrossAttentionRegressor": "systems",
    "GatedRegressor": "systems",
    "LSTMRegressor": "systems",
    "ProjectionHeadRegressor": "systems",
    "SVREnsembleRegressor": "systems",
    "TransformerRegressor": "systems",
    "VectorMLPRegressor": "systems",
    "average": "systems",
    "rank_average": "systems",
    "with_wrong_captions": "pseudo_labels",
}

__all__ = [
    "AudioCaptioner",
    "AudioLanguageModelRegressor",
    "BoostedTrees",
    "CachedPairs",
    "CaptionedSequenceBuilder",
    "CaptionedSequences",
    "CosineMean",
    "CrossAttentionRegressor",
    "CrossValidation",
    "Encoder",
    "EncoderChoice",
    "EncoderInfo",
    "Evaluation",
    "FeatureBuilder",
    "FeatureCache",
    "FeatureTable",
    "GatedRegressor",
    "LSTMRegressor",
    "ListenerModel",
    "PairEmbeddings",
    "PairSequences",
    "Pairs",
    "ProjectionHeadRegressor",
    "Rating",
    "SVREnsembleRegressor",
    "Scorer",
    "Selection",
    "SequenceBuilder",
    "Stacker",
    "TransformerRegressor",
    "VectorBuilder",
    "VectorMLPRegressor",
    "XacleStackError",
    "agreement_features",
    "average",
    "caption_similarity",
    "cosine_similarity",
    "cross_validate",
    "evaluate",
    "extract_embeddings",
    "list_splits",
    "load_card",
    "load_model",
    "pair_features",
    "pseudo_label",
    "rank_average",
    "rate",
    "read_clip",
    "read_generated",
    "read_pairs",
    "read_predictions",
    "read_splits",
    "save_model",
    "select_stack",
    "with_wrong_captions",
    "write_captions",
    "write_predictions",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"xacle_stack.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
