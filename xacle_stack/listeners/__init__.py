"""Estimates scores of pairs and habits of listeners from single ratings."""

from xacle_stack.listeners.model import ListenerModel

__all__ = ["ListenerModel"]
