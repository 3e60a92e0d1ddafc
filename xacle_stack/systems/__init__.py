"""Systems beside the stack, on cached arrays."""

from xacle_stack.systems.ensemble import rank_average

__all__ = ["rank_average"]
