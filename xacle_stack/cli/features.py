"""``xacle-stack features``: encode a data set into the cache."""

from xacle_stack.cli.cluster import on_cluster
from xacle_stack.cli.options import (
    DEFAULT_RECIPE,
    DEFAULT_STORE,
    AudioColumn,
    AudioRoot,
    BatchSize,
    Checkpoints,
    Cluster,
    Code,
    Data,
    Device,
    Jobs,
    PrecisionName,
    Quiet,
    RecipeName,
    Store,
    TextColumn,
    TrainSet,
    chosen_recipe,
    chosen_sets,
)
from xacle_stack.cli.show import console, error_console, new_store_said, noun, stop_on_failures


def features(
    data: Data,
    recipe: RecipeName = DEFAULT_RECIPE,
    store: Store = DEFAULT_STORE,
    train: TrainSet = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    precision: PrecisionName = None,
    checkpoint: Checkpoints = None,
    code: Code = None,
    audio_column: AudioColumn = None,
    text_column: TextColumn = None,
    audio_root: AudioRoot = None,
    jobs: Jobs = -1,
    cluster: Cluster = None,
    quiet: Quiet = False,
) -> None:
    """Encode every clip and caption of a data set, once, into the cache."""
    from xacle_stack.experiment import fill_cache

    settings = chosen_recipe(recipe, precision, checkpoint, code)
    splits = chosen_sets(data, audio_column, text_column, audio_root)
    try:
        with on_cluster(cluster), new_store_said(store):
            report = fill_cache(
                data,
                settings,
                store,
                splits=splits,
                train=train,
                device=device,
                batch_size=batch_size,
                n_jobs=jobs,
                progress=not quiet,
            )
    except KeyboardInterrupt:
        error_console.print("\nStopped. What is encoded is kept: type the same command to go on.")
        raise
    for name, modality in report.encoded | report.reused:
        console.print(
            f"{name}: {report.encoded[name, modality]} {noun(modality)} encoded, "
            f"{report.reused[name, modality]} were in the cache"
        )
    stop_on_failures(report)
