# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Every patch in ``patches/`` applies to the published package, and does there what verl alone does not."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
from verl_versions.published import PATCHES, packages, patched

HERE = Path(__file__).parent
VERSIONS = ["0.9.1", "0.9.0", "0.8.0"]
WITH_PLUGINS = ["0.9.1", "0.9.0"]
BROKEN = "[verl.plugins]\nbroken = broken_plugin\n"


@dataclass
class Seen:
    """What ``observe.py`` printed, and verl's log."""

    found: dict[str, Any]
    log: str


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    tiny.save_base(root / "base")
    tiny.save_sft(root / "sft", root / "base")
    return root


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``seen(version, patched)``: each looked at once, in a process of its own, with a plugin that fails."""
    root = tmp_path_factory.mktemp("verl")
    metadata = root / "plugin" / "broken-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(BROKEN)
    (root / "plugin" / "broken_plugin.py").write_text("raise RuntimeError('this plugin is broken')\n")
    known: dict[tuple[str, bool], Seen] = {}

    def look(version: str, with_patches: bool) -> Seen:
        if (version, with_patches) not in known:
            source = patched(version, root / version) if with_patches else packages(version)
            path = os.pathsep.join([str(source), str(root / "plugin")])
            command = [sys.executable, str(HERE / "observe.py"), str(checkpoints / "sft"), str(checkpoints / "base")]
            env = os.environ | {"PYTHONPATH": path, "VERL_USE_EXTERNAL_PLUGINS": "broken"}
            result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
            assert result.returncode == 0, result.stderr[-3000:]
            found = json.loads(result.stdout.splitlines()[-1])
            assert found.pop("file").startswith(str(source))
            known[version, with_patches] = Seen(found, result.stderr)
        return known[version, with_patches]

    return look


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_else_changes(version: str, seen: Any) -> None:
    """What the patches leave alone, and what they do when nobody uses them."""
    before, after = (seen(version, with_patches).found for with_patches in (False, True))
    unused = ["version", "reference", "plain"]
    assert before["version"] == version
    assert [before.get(key) for key in unused] == [after.get(key) for key in unused]


@pytest.mark.parametrize("version", WITH_PLUGINS)
def test_loud_plugin_errors(version: str, seen: Any) -> None:
    before, after = (seen(version, with_patches).log for with_patches in (False, True))
    assert "broken" not in before
    assert "Failed to load plugin 'broken' (broken_plugin)" in after
    assert "RuntimeError: this plugin is broken" in after
    assert 'broken_plugin.py", line 1' in after


@pytest.mark.parametrize("version", VERSIONS)
def test_forward_plugin_variables(version: str, seen: Any) -> None:
    before, after = (seen(version, with_patches).found for with_patches in (False, True))
    variables = ["VERL_USE_EXTERNAL_MODULES"]  # all that 0.8 knows
    if version in WITH_PLUGINS:
        variables = ["VERL_PLATFORM", *variables, "VERL_USE_EXTERNAL_PLUGINS"]
    assert before["forwarded"] == []
    assert after["forwarded"] == variables
    # Ray refuses a variable that the job's own runtime environment has as well.
    assert after["forwarded in a Ray job that names one"] == [v for v in variables if "MODULES" not in v]


@pytest.mark.parametrize("version", VERSIONS)
def test_reference_model_path(version: str, seen: Any, checkpoints: Path) -> None:
    before, after = (seen(version, with_patches).found for with_patches in (False, True))
    assert "unexpected keyword argument 'model'" in before["other reference"]
    assert after["other reference"] == [str(checkpoints / "base")] * 2
    assert after["reference"] == [str(checkpoints / "sft")] * 2


@pytest.mark.parametrize("version", WITH_PLUGINS)
def test_trainer_callback(version: str, seen: Any) -> None:
    before, after = (seen(version, with_patches).found["with a callback"] for with_patches in (False, True))
    assert before == {"logged": {"1": {"loss": 1.0}, "2": {"loss": 0.5}}, "seen": []}
    assert after["logged"] == {"1": {"loss": 1.0, "mine": 10.0}, "2": {"loss": 0.5, "mine": 5.0}}
    assert after["seen"] == [
        "built for gsm8k", "begin at step 1", "end of step 1 with loss 1.0", "end of step 2 with loss 0.5",
    ]  # fmt: skip


def test_each_patch_is_described() -> None:
    """A row says for which versions, what and why; another its upstream status and when to remove it."""
    lines = [line.split("|") for line in (PATCHES / "README.md").read_text().splitlines() if line.startswith("| `")]
    for name in {path.stem for path in PATCHES.glob("*/*.patch")}:
        what, status = ([cell.strip() for cell in line[2:-1]] for line in lines if line[1].strip() == f"`{name}`")
        versions = sorted(path.parent.name for path in PATCHES.glob(f"*/{name}.patch"))
        assert sorted(what[0].split(", ")) == versions, name
        assert all(what), name
        assert all(status), name
