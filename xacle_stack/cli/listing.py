"""What is there: the encoders and what they need, the cache and its state."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Column, Table

from xacle_stack.cli.app import App
from xacle_stack.cli.options import DEFAULT_STORE, Store
from xacle_stack.cli.show import console, fail
from xacle_stack.errors import XacleStackError, bullet_list

if TYPE_CHECKING:
    from xacle_stack.cache import FeatureCache
    from xacle_stack.encoders import Encoder

cache_app = App(help="Look after the cached embeddings.", no_args_is_help=True)


def encoders(
    missing: Annotated[
        Path | None,
        typer.Option(
            metavar="RECIPE",
            help="Print only the extras that a recipe's encoders need and that are not installed. "
            "Python files that it names are not run.",
        ),
    ] = None,
) -> None:
    """List the encoders that a recipe can name, and what each still needs on this machine."""
    from xacle_stack.encoders import encoder_names, get_encoder
    from xacle_stack.recipe import registered_encoders

    if missing is not None:
        infos = [choice.encoder.info for choice in registered_encoders(missing)]
        extras = {info.extra for info in infos if info.extra and not info.is_installed}
        console.print(",".join(sorted(extras)), end="")
        return
    table = Table(
        Column("encoder", no_wrap=True),
        Column("audio", overflow="fold"),
        Column("text", overflow="fold"),
        "kHz",
        "window",
        Column("licence", overflow="fold"),
        "installed",
        "checkpoint",
        box=box.SIMPLE_HEAD,
    )
    notes = []
    for name in encoder_names():
        encoder = get_encoder(name)
        info = encoder.info
        audio, text = (
            ", ".join(
                f"{output} {'T × ' if output in info.sequences else ''}{n_dims}"
                for output, n_dims in info.outputs(m).items()
            )
            or "–"
            for m in ("audio", "text")
        )
        is_here = info.weights is None or _is_here(encoder)
        table.add_row(
            name,
            audio,
            text,
            "–" if info.sample_rate_hz is None else f"{info.sample_rate_hz / 1000:g}",
            "any" if info.window_s is None else f"{info.window_s:.3g} s",
            info.licence,
            "yes" if info.is_installed else "no",
            "built in" if info.weights is None else "found" if is_here else "not found",
        )
        note = f"{name}: {info.summary.rstrip('.')}."
        if not info.is_installed:
            note += f" Install: pip install 'xacle-stack[{info.extra}]'."
        if info.weights is not None and not is_here:
            note += f" Checkpoint: {info.weights.hub_id or info.weights.source}."
        if info.code is not None:
            note += f" Code of yours: {info.code}."
        notes.append(note)
    console.print(table)
    console.print("\n".join(notes), soft_wrap=True)


def _is_here(encoder: "type[Encoder]") -> bool:
    try:
        encoder.find_checkpoint(None, download=False)
    except XacleStackError:
        return False
    return True


@cache_app.command("ls")
def cache_ls(store: Store = DEFAULT_STORE) -> None:
    """List what the cache holds."""
    table = Table(
        "encoder", "fingerprint", "of", "rows", "outputs", "segments", "MB", box=box.SIMPLE_HEAD
    )
    for summary in _existing(store).summaries():
        table.add_row(
            summary.store.encoder,
            summary.store.fingerprint,
            summary.modality,
            str(summary.n_rows),
            ", ".join(
                f"{name} {'T × ' if name in summary.sequences else ''}{n_dims}"
                for name, n_dims in summary.outputs.items()
            ),
            str(summary.n_segments),
            f"{summary.n_bytes / 1e6:.1f}",
        )
    console.print(table)


@cache_app.command("verify")
def cache_verify(store: Store = DEFAULT_STORE) -> None:
    """Check every byte of the cache; exit with 1 if anything is damaged."""
    faults, n_segments = [], 0
    for path, fault in _existing(store).verify():
        n_segments += 1
        if fault is not None:
            faults.append(fault if str(path) in fault else f"{path}: {fault}")
    if faults:
        fail(f"{len(faults)} of {n_segments} files have a fault:\n{bullet_list(faults)}")
    console.print(f"{n_segments} segments, all sound")


@cache_app.command("compact")
def cache_compact(store: Store = DEFAULT_STORE) -> None:
    """Merge small segments into large ones and drop duplicate rows."""
    for summary in _existing(store).compact():
        console.print(
            f"{summary.store.folder} {summary.modality}: {summary.n_rows} rows in "
            f"{summary.n_segments} segment(s)",
            soft_wrap=True,
        )


def _existing(store: Path) -> "FeatureCache":
    from xacle_stack.cache import FeatureCache

    cache = FeatureCache(store)
    if not cache.stores():
        fail(
            f"{store}: there is no cache here. Make one with `xacle-stack features`, or give "
            "--store."
        )
    return cache
