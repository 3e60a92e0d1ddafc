"""Commands that drop nothing of what was typed."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from xacle_stack._printable import printable


class Command(TyperCommand):
    """A command that refuses a second value for an option that takes one.

    Click would take the last one and say nothing.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options; see the class."""
        try:
            _, _, given = self.make_parser(ctx).parse_args(list(args))
            for parameter, times in Counter(given).items():
                takes_one = isinstance(parameter, TyperOption) and not (
                    parameter.multiple or parameter.is_flag or parameter.count
                )
                if takes_one and times > 1:
                    raise typer.BadParameter(
                        f"{parameter.opts[0]} was given {times} times, but takes one value. Give "
                        "it once.",
                        ctx=ctx,
                    )
            return super().parse_args(ctx, args)
        except Exception as error:
            # Click's errors, which typer may bring along in a copy of its own.
            if isinstance(message := getattr(error, "message", None), str):
                error.message = printable(message)  # type: ignore[attr-defined]
            raise


class App(typer.Typer):
    """An app of such commands."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[..., Any]:
        """Register a command."""
        return super().command(name, cls=Command, **settings)
