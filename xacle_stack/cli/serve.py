"""``xacle-stack serve``: score uploaded sounds over HTTP."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack._printable import printable_name
from xacle_stack.cli.options import Checkpoints, Code, Device, by_name
from xacle_stack.cli.show import console, fail


def serve(
    model: Annotated[
        Path, typer.Argument(help="A model that a run or Scorer.save wrote, or its folder.")
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen on; the default is this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    max_bytes: Annotated[int, typer.Option(min=1, help="The largest body of a request.")] = 32
    << 20,
    max_duration: Annotated[
        float, typer.Option(min=0.1, max=3600, help="The longest clip, in seconds.")
    ] = 60.0,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Clips of one request, and clips scored together.")
    ] = 32,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, max=10_000, help="How long a clip waits for others.")
    ] = 5.0,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Needed if the model has an encoder from a Python file."),
    ] = None,
    device: Device = "auto",
    checkpoint: Checkpoints = None,
    code: Code = None,
) -> None:
    """Serve a model: POST /score, GET /health, GET /openapi.json. Ctrl-C ends it."""
    import socket

    from xacle_stack._optional import require

    uvicorn = require("uvicorn", extra="serve", purpose="xacle-stack serve")
    from xacle_stack.scorer import Scorer
    from xacle_stack.service import Limits, create_app

    scorer = Scorer.load(
        model,
        recipe,
        checkpoints=by_name(checkpoint, "--checkpoint"),
        code=by_name(code, "--code"),
        device=device,
    )
    named = model.resolve().parent if model.name == "model.skops" else model.resolve()
    limits = Limits(
        max_bytes, max_duration, max_batch, max_wait_ms, max_queue=max(128, 4 * max_batch)
    )
    app = create_app(scorer, limits, name=named.stem)
    # The address is taken before the encoders are loaded, so that a mistake is told at once.
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        fail(f"{host}, port {port}: {error.strerror or error}. Give another --host or --port.")
    console.print(
        f"{printable_name(model)}: http://{host}:{port} is ready once /health answers; Ctrl-C ends "
        "it.",
        soft_wrap=True,
    )
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        limit_concurrency=8 * max_batch + 64,
        timeout_graceful_shutdown=60,
    )
    with listener:
        uvicorn.Server(config).run(sockets=[listener])
