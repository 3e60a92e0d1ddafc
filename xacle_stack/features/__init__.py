"""Pair features and agreement features, arrays to arrays, and the builders of tables of them."""

from xacle_stack.features.agreement import agreement_features
from xacle_stack.features.builder import FeatureBuilder
from xacle_stack.features.captioned import CaptionedSequenceBuilder, CaptionedSequences
from xacle_stack.features.embeddings import PairEmbeddings
from xacle_stack.features.novelty import Novelty
from xacle_stack.features.pair import (
    cosine_similarity,
    lexical_overlap,
    pair_features,
    proximities,
)
from xacle_stack.features.pair_blocks import AGREEMENT
from xacle_stack.features.sequences import PairSequences, SequenceBuilder
from xacle_stack.features.vectors import VectorBuilder

# What a saved model may hold of this package.
SAVED_TYPES = (
    "xacle_stack.features.builder.FeatureBuilder",
    "xacle_stack.features.captioned.CaptionedSequenceBuilder",
    "xacle_stack.features.novelty.Novelty",
    "xacle_stack.features.sequences.SequenceBuilder",
    "xacle_stack.features.vectors.VectorBuilder",
)

__all__ = [
    "AGREEMENT",
    "CaptionedSequenceBuilder",
    "CaptionedSequences",
    "FeatureBuilder",
    "Novelty",
    "PairEmbeddings",
    "PairSequences",
    "SequenceBuilder",
    "VectorBuilder",
    "agreement_features",
    "cosine_similarity",
    "lexical_overlap",
    "pair_features",
    "proximities",
]
