"""What listeners say and how they say it: scores of pairs from single ratings.  Arrays only."""

from xacle_stack.listeners.model import ListenerModel

# What a saved model may hold of this package.
SAVED_TYPES = ("xacle_stack.listeners.model.ListenerModel",)

__all__ = ["ListenerModel"]
