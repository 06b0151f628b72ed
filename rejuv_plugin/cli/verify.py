# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv verify``: is a checkpoint what its manifest says?"""

import json
import sys
from pathlib import Path
from typing import Annotated

from .command import Argument, Option


def verify(
    directory: Annotated[Path, Argument("A rejuvenated checkpoint.")],
    as_json: Annotated[bool, Option("Print what is wrong as JSON on stdout.", "--json")] = False,
) -> None:
    """Compare every byte of a rejuvenated checkpoint with its rejuvenation.json: a line for each file that differs.

    Exit code 0 when it is as it was written, 2 when it is not.
    """
    from .. import checkpoint

    with checkpoint.bars() as progress:
        problems = checkpoint.verify(directory, "DIRECTORY", progress)
    lines = [f"{file}: {problem}" for file, problem in problems.items()] or [f"{directory}: as it was written"]
    print(json.dumps(problems, indent=2) if as_json else "\n".join(lines))
    sys.exit(2 if problems else 0)
