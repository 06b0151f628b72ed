# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv status``: does verl load the plugin?"""

import sys

import click


@click.command(short_help="Does verl load the plugin in this environment?")
def status() -> None:
    """Say whether verl, in this environment, loads the plugin; run it where your workers run.

    Exit code 0 when it does, 1 when it does not.
    """
    from ..integrations.verl.status import report as look

    lines, loaded = look()
    print("\n".join(lines))
    sys.exit(0 if loaded else 1)
