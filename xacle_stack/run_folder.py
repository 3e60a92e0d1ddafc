"""The folder that a run writes its results to."""

import hashlib
from pathlib import Path

from xacle_stack._files import write_atomically
from xacle_stack.errors import ModelFileError
from xacle_stack.stacking import load_card

# Below the folder of a comparison.
MODELS = "models"


def claim_folder(out: Path, data: Path) -> None:
    """Make the folder of the results before anything is fitted, or say why it cannot be.

    Raises
    ------
    ModelFileError
        If it cannot be written, or holds the results of another data set.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / ".writable", b"")
        (out / ".writable").unlink()
    except OSError as error:
        raise ModelFileError(
            f"{out}: cannot be written ({error.strerror}). Give another folder with --out."
        ) from None
    for model in [out, *out.glob(f"{MODELS}/*.skops")]:
        try:
            card = load_card(model)
        except ModelFileError:  # no finished run
            continue
        if card.get("data", data_digest(data)) != data_digest(data):
            raise ModelFileError(
                f"{out}: it holds the results of another data set of the same name. Give another "
                "folder with --out, or remove this one."
            )


def data_digest(data: Path) -> str:
    """Return what a model's card says of where its data set was."""
    # Not the path itself: a model may be given away.
    return hashlib.blake2b(str(data.resolve()).encode(), digest_size=8).hexdigest()
