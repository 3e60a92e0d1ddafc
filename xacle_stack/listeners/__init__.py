"""Estimates scores of pairs and habits of listeners from single ratings."""

from xacle_stack.listeners.model import ListenerModel

# What a saved model may hold of this package.
SAVED_TYPES = ("xacle_stack.listeners.model.ListenerModel",)

__all__ = ["ListenerModel"]
