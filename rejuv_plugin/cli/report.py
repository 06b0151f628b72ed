# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv report``: what the plasticity monitors saw of RL runs, as one page."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="Directories of runs (trainer.default_local_dir)."),
    ],
    output: Annotated[Path, typer.Option(help="The .html file to write; an older report is replaced.")],
) -> None:
    """Draw one run, or compare several: alarms, curves, layers over time, last values, what they mean.

    One HTML file without any network access, made of the plasticity.jsonl and alarms.jsonl that a run with monitors
    leaves in its directory; a run that is still going will do.

    Example:

        rejuv report runs/over runs/rejuvenated --output report.html
    """
    from ..monitors.catalogue import CATALOGUE
    from ..report.page.document import check_output
    from ..report.runs.page import write
    from ..report.runs.run import load_runs

    check_output(output, "--output")
    found = load_runs(runs, "RUN_DIR")
    write(found, list(CATALOGUE.values()), output)
    alarms = sum(alarm.ended is None for run in found for alarm in run.alarms)
    print(f"{len(found)} run{'s' if len(found) > 1 else ''}, {alarms} alarm{'' if alarms == 1 else 's'} on: {output}")
