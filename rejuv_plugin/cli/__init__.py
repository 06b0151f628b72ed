# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The console command ``rejuv``: parse, call, print; one module for each job.

Exit codes: 0 done, 2 bad input (one line on stderr, nothing written), 1 anything else.
"""

import sys
from typing import Annotated

import typer

from .. import __version__
from ..errors import InputError
from .apply import apply
from .diagnose import diagnose
from .neurons import calibrate, reset_set
from .report import report
from .tune import tune
from .verify import verify

# Plain tracebacks: a failure that is not the user's should be easy to paste into an issue.
app = typer.Typer(
    help="Rejuvenate over-trained SFT checkpoints before RL (arXiv 2606.09932).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main(argv: list[str] | None = None) -> None:
    """Run the console command and exit."""
    try:
        app(args=argv, prog_name="rejuv")
    except InputError as error:
        print(f"rejuv: {error}", file=sys.stderr)
        sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rejuv {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(apply)
app.command()(diagnose)
app.command()(verify)
app.command()(calibrate)
app.command("reset-set")(reset_set)
app.command()(report)
app.command()(tune)


@app.command()
def status() -> None:
    """Say whether verl, in this environment, loads the plugin; run it where your workers run.

    Exit code 0 when it does, 1 when it does not.
    """
    from ..integrations.verl.status import report as look

    lines, loaded = look()
    print("\n".join(lines))
    raise typer.Exit(0 if loaded else 1)
