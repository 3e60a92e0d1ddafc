"""What listeners say and how they say it: scores of pairs from single ratings.  Arrays only."""

from xacle_stack.listeners.model import ListenerModel

__all__ = ["ListenerModel"]
