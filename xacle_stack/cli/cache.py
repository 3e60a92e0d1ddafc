"""``xacle-stack cache``: list, verify and compact the cached embeddings."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from xacle_stack.cli.app import App
from xacle_stack.cli.options import DEFAULT_STORE, Jobs, Store
from xacle_stack.cli.show import console, fail
from xacle_stack.errors import bullet_list

if TYPE_CHECKING:
    from xacle_stack.cache import FeatureCache

cache_app = App(help="Look after the cached embeddings.", no_args_is_help=True)


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
def cache_verify(store: Store = DEFAULT_STORE, jobs: Jobs = -1) -> None:
    """Check every byte of the cache; exit with 1 if anything is damaged."""
    faults, n_segments = [], 0
    for path, fault in _existing(store).verify(jobs):
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
