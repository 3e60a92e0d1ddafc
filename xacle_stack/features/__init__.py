"""Pair features and agreement features, arrays to arrays, and the builders of tables of them."""

from xacle_stack.features.agreement import agreement_features
from xacle_stack.features.builder import FeatureBuilder
from xacle_stack.features.embeddings import PairEmbeddings
from xacle_stack.features.pair import cosine_similarity, lexical_overlap, pair_features
from xacle_stack.features.pair_blocks import AGREEMENT
from xacle_stack.features.sequences import PairSequences, SequenceBuilder
from xacle_stack.features.vectors import VectorBuilder

__all__ = [
    "AGREEMENT",
    "FeatureBuilder",
    "PairEmbeddings",
    "PairSequences",
    "SequenceBuilder",
    "VectorBuilder",
    "agreement_features",
    "cosine_similarity",
    "lexical_overlap",
    "pair_features",
]
