# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Names of metrics; their table in docs/monitors.md: ``python tests/plugin/test_monitor_catalogue.py`` prints it."""

from pathlib import Path

import pytest

import rejuv_plugin
from rejuv_plugin.monitors.catalogue import CATALOGUE
from rejuv_plugin.monitors.metric import QUANTILES
from rejuv_plugin.monitors.rules import RULES

PAGE = Path(rejuv_plugin.__file__).parents[1] / "docs" / "monitors.md"


def table() -> str:
    rows = [("metric", "meaning", "unit, range", "healthy", "cost", "reduction")]
    rows += [(f"`{name}`", m.meaning, m.unit, m.healthy, m.cost, m.reduction) for name, m in CATALOGUE.items()]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def test_the_page_has_the_table() -> None:
    assert table() in PAGE.read_text(), f"run python {__file__}, and put what it prints in {PAGE}"


@pytest.mark.parametrize("name", CATALOGUE)
def test_verl_reduces_every_name_by_its_mean(name: str) -> None:
    """As ``reduce_metrics`` goes by what is in a name: ``max`` and ``min`` would take that."""
    from verl.utils.metric import reduce_metrics

    names = [name, *(f"{name}_layers/{quantile}" for quantile in QUANTILES), f"{name}_layers/003"]
    assert reduce_metrics({name: [1.0, 2.0, 6.0] for name in names}) == dict.fromkeys(names, 3.0)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_alarms_read_what_there_is(rule) -> None:
    from verl.utils.metric import reduce_metrics

    alarm = f"training/plasticity/alarm/{rule.name}"
    assert reduce_metrics({alarm: [1.0, 0.0]}) == {alarm: 0.5}
    ours = [name.partition("_layers/")[0] for name in rule.reads if "/plasticity/" in name]
    assert ours
    assert set(ours) <= set(CATALOGUE)


if __name__ == "__main__":
    print(table())
