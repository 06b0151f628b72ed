# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The console command ``rejuv``: parse, call, print; one module for each job.

Exit codes: 0 done, 2 bad input (one line on stderr, nothing written), 1 anything else.
"""

import sys
from importlib import import_module

import click

from .. import __version__
from ..errors import InputError, one_line

# Each command by its module, which is imported when it is asked for: none waits for what another one needs. In the
# order of the work.
_MODULES = {
    "status": "status", "diagnose": "diagnose", "tune": "tune", "apply": "apply", "verify": "verify",
    "report": "report", "calibrate": "neurons", "reset-set": "neurons", "alphas": "alphas",
}  # fmt: skip


class _Commands(click.Group):
    """Click's own recipe for commands that are imported late."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _MODULES:
            return None
        return getattr(import_module(f".{_MODULES[name]}", __package__), name.replace("-", "_"))


@click.group("rejuv", cls=_Commands, context_settings={"max_content_width": 120, "show_default": True})
@click.version_option(__version__, message="%(prog)s %(version)s")
def app() -> None:
    """Rejuvenate over-trained SFT checkpoints before RL (arXiv 2606.09932)."""


def main(argv: list[str] | None = None) -> None:
    """Run the console command and exit."""
    try:
        # Of its own errors click prints three lines of usage before the one that says what is wrong.
        code = app(args=argv, prog_name="rejuv", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "rejuv"
        print(f"rejuv: {one_line(error.format_message())} Fix: see {command} --help.", file=sys.stderr)
        sys.exit(2)
    except click.Abort:
        print("rejuv: stopped", file=sys.stderr)
        sys.exit(130)
    except InputError as error:
        print(f"rejuv: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # A file that cannot be read, a disk that is full: said by the system, and not by a bug of ours.
        print(f"rejuv: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
    # Of --help and --version, and of a command that ends by click's own exit.
    sys.exit(code if isinstance(code, int) else 0)
