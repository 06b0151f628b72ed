# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv verify``: is a checkpoint what its manifest says?"""

import json
import sys
from pathlib import Path

import click

from .options import PATH


@click.command(short_help="Compare a written checkpoint with its manifest.")
@click.argument("directory", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print what is wrong as JSON on stdout.")
def verify(directory: Path, as_json: bool) -> None:
    """Compare every byte of a rejuvenated checkpoint with its rejuvenation.json: a line for each file that differs.

    DIRECTORY is the checkpoint. Exit code 0 when it is as it was written, 2 when it is not.
    """
    from .. import checkpoint

    with checkpoint.bars() as progress:
        problems = checkpoint.verify(directory, "DIRECTORY", progress)
    lines = [f"{file}: {problem}" for file, problem in problems.items()] or [f"{directory}: as it was written"]
    print(json.dumps(problems, indent=2) if as_json else "\n".join(lines))
    sys.exit(2 if problems else 0)
