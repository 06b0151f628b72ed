# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv report``: what the monitors saw of RL runs, or what a diagnosis or a tuning found, as one page."""

from collections.abc import Sequence
from pathlib import Path

import click

from .options import PATH

KEY = "DIR"


@click.command(short_help="A page of one RL run, or of several.")
@click.argument("results", type=PATH, nargs=-1, required=True, metavar=f"{KEY}...")
@click.option("--output", type=PATH, required=True, help="The .html file to write; an older report is replaced.")
def report(results: tuple[Path, ...], output: Path) -> None:
    """Draw one run, or compare several: alarms, curves, layers over time, last values, what they mean.

    Or draw a diagnosis or a tuning anew: the verdict or the choice, its evidence, pictures, numbers.

    One HTML file without any network access. DIR is the directory of a run (trainer.default_local_dir), or one that
    rejuv diagnose or rejuv tune wrote. Of runs it is made of the plasticity.jsonl and alarms.jsonl that a run with
    monitors leaves in its directory; a run that is still going will do. Else it is made of metrics.json or tuning.json.

    \b
    Examples:
      rejuv report runs/over runs/rejuvenated --output report.html
      rejuv report diagnosis --output diagnosis.html
    """
    from ..report.diagnosis import write, write_tuning
    from ..report.page.document import check_output
    from ..report.results import kind_of, load

    check_output(output, "--output")
    kind = kind_of(results, KEY)
    if kind == "run":
        print(_runs(results, output))
        return
    (write if kind == "diagnosis" else write_tuning)(load(results[0], kind), output)
    print(f"1 {kind}: {output}")


def _runs(results: Sequence[Path], output: Path) -> str:
    from ..monitors.catalogue import CATALOGUE
    from ..report.page.text import counted
    from ..report.runs.page import write
    from ..report.runs.run import load_runs

    found = load_runs(results, KEY)
    write(found, list(CATALOGUE.values()), output)
    alarms = sum(alarm.ended is None for run in found for alarm in run.alarms)
    unjudged = sum(not run.judged for run in found)
    without = f", {counted(unjudged, 'run')} not judged" if unjudged else ""
    return f"{counted(len(found), 'run')}, {counted(alarms, 'alarm')} on{without}: {output}"
