# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One page about a diagnosis of checkpoints, or about a search for alpha and rho.

From the top: `write` and `write_tuning`; `page` and `tuning` put together what is said in words (`verdict`, `words`),
drawn (`sections` choose, `pictures` draw) and listed (`numbers`); `read` and `fields` check what is in the file. What a
page is made of: `report.page`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...checkpoint.small_file import write_text
from .page import page
from .tuning import tuning_page


def write(metrics: Mapping[str, Any], path: Path) -> None:
    """Write the page of a diagnosis, all or nothing; a file that is there is replaced.

    Args:
        metrics: what `rejuv diagnose` writes into metrics.json.
        path: the .html file.

    Raises:
        InputError: named by the place in ``metrics`` that is not as it should be.
    """
    write_text(path, page(metrics))


def write_tuning(tuning: Mapping[str, Any], path: Path) -> None:
    """Write the page of a tuning, all or nothing; a file that is there is replaced.

    Args:
        tuning: what `rejuv tune` writes into tuning.json.
        path: the .html file.

    Raises:
        InputError: named by the place in ``tuning`` that is not as it should be.
    """
    write_text(path, tuning_page(tuning))
