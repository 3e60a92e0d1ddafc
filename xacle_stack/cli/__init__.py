"""The command line: one file a command.

The only part that prints, configures logging or exits.  Commands import what they need themselves,
so that help and mistakes answer at once.
"""

import io
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from xacle_stack.cli.app import App
from xacle_stack.cli.cache import cache_app
from xacle_stack.cli.caption import caption
from xacle_stack.cli.compare import compare
from xacle_stack.cli.demo import demo
from xacle_stack.cli.encoders import encoders
from xacle_stack.cli.ensemble import ensemble
from xacle_stack.cli.evaluate import evaluate
from xacle_stack.cli.features import features
from xacle_stack.cli.rate import rate
from xacle_stack.cli.reproduce import reproduce
from xacle_stack.cli.score import score
from xacle_stack.cli.serve import serve
from xacle_stack.cli.show import console, fail, show_logs, warnings_logged
from xacle_stack.cli.show_model import show
from xacle_stack.cli.stack import stack
from xacle_stack.errors import XacleStackError

app = App(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"xacle-stack {version('xacle-stack')}")
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Predict how well a sound matches a text, 0-10, as listeners would score it."""


for _command in (
    *(features, stack, score, rate, serve, evaluate, compare, reproduce, show, ensemble),
    *(caption, encoders),
):
    app.command()(_command)
app.add_typer(cache_app, name="cache")
app.command()(demo)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a mistake in the user's files ends in one message and exit code 1."""
    show_logs()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or a pipe that cannot show a letter
        sys.stdout.reconfigure(errors="backslashreplace")
    # A scheduler's polite stop is handled like Ctrl-C: what is encoded is kept.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with warnings_logged():
            app(args=arguments)
    except XacleStackError as error:
        fail(str(error))
    except BrokenPipeError:  # `xacle-stack … | head`
        raise SystemExit(1) from None
    except OSError as error:  # a folder without permission, a full disk: the system says it best
        where = "what this command prints or keeps" if error.filename is None else error.filename
        fail(f"{where}: {error.strerror or error}.")
