# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The console command ``rejuv``: parse, call, print; one module for each job.

Exit codes: 0 done, 2 bad input (one line on stderr, nothing written), 1 anything else.
"""

import sys
from importlib import import_module

import click

from .. import __version__
from ..errors import InputError
from .command import WIDTH, command

# Each command by its module, which is imported when it is asked for: none waits for what another one needs.
_COMMANDS = {
    **{name: name for name in ("apply", "alphas", "diagnose", "verify")},
    **{"calibrate": "neurons", "reset-set": "neurons"},
    **{name: name for name in ("report", "tune", "status")},
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = import_module(f".{_COMMANDS[name]}", __package__)
        return command(getattr(module, name.replace("-", "_")), name)


app = _Commands(
    "rejuv",
    help="Rejuvenate over-trained SFT checkpoints before RL (arXiv 2606.09932).",
    no_args_is_help=True,
    context_settings={"max_content_width": WIDTH},
)
click.version_option(__version__, message="%(prog)s %(version)s")(app)


def main(argv: list[str] | None = None) -> None:
    """Run the console command and exit."""
    try:
        app(args=argv, prog_name="rejuv")
    except InputError as error:
        print(f"rejuv: {error}", file=sys.stderr)
        sys.exit(2)
