"""Columns: pair features and agreement features, arrays to arrays, and the table of them."""

from xacle_stack.features.agreement import agreement_features
from xacle_stack.features.builder import FeatureBuilder
from xacle_stack.features.columns import AGREEMENT
from xacle_stack.features.embeddings import PairEmbeddings
from xacle_stack.features.pair import cosine_similarity, lexical_overlap, pair_features
from xacle_stack.features.sequences import PairSequences, SequenceColumns
from xacle_stack.features.spaces import SpaceColumns
from xacle_stack.features.table import FeatureTable

__all__ = [
    "AGREEMENT",
    "FeatureBuilder",
    "FeatureTable",
    "PairEmbeddings",
    "PairSequences",
    "SequenceColumns",
    "SpaceColumns",
    "agreement_features",
    "cosine_similarity",
    "lexical_overlap",
    "pair_features",
]
