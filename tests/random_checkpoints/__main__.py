"""Write random checkpoints into a folder: see the package's docstring."""

import argparse
from pathlib import Path

from random_checkpoints import LANGUAGE_MODELS, WRITERS, write_checkpoint

parser = argparse.ArgumentParser(prog="python -m random_checkpoints", description=__doc__)
parser.add_argument("folder", type=Path, help="becomes HF_HOME")
parser.add_argument(
    "encoders",
    nargs="*",
    default=list(WRITERS),
    help=f"default: all; also the language model {', '.join(LANGUAGE_MODELS)}",
)
parser.add_argument("--tiny", action="store_true", help="small models in the same format")
arguments = parser.parse_args()
for encoder in arguments.encoders:
    if encoder not in {**WRITERS, **LANGUAGE_MODELS}:
        known = ", ".join([*WRITERS, *LANGUAGE_MODELS])
        parser.error(f"unknown encoder {encoder!r}; known: {known}")
    print(encoder, write_checkpoint(arguments.folder, encoder, full=not arguments.tiny))
