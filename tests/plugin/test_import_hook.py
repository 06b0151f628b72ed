# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from rejuv_plugin.integrations.verl.import_hook import after_import


@pytest.fixture
def module_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "a_module_of_this_test"
    (tmp_path / f"{name}.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield name
    sys.modules.pop(name, None)


def test_actions_run_in_order_after_the_module_and_once(module_name: str) -> None:
    seen = []
    after_import(module_name, lambda m: seen.append(("first", m.VALUE)))
    after_import(module_name, lambda m: seen.append(("second", m.VALUE)))
    assert module_name not in sys.modules
    module = importlib.import_module(module_name)
    importlib.import_module(module_name)
    assert seen == [("first", 1), ("second", 1)]
    assert module.__spec__.loader is module.__loader__
    assert type(module.__loader__).__name__ != "_Loader"


def test_a_module_that_is_there_is_acted_on_now(module_name: str) -> None:
    importlib.import_module(module_name)
    seen = []
    after_import(module_name, seen.append)
    assert seen == [sys.modules[module_name]]


def test_a_look_or_a_failed_import_does_not_disarm(module_name: str, tmp_path: Path) -> None:
    seen = []
    after_import(module_name, seen.append)
    assert importlib.util.find_spec(module_name) is not None
    source = tmp_path / f"{module_name}.py"
    source.write_text("raise RuntimeError('not yet')\n")
    with pytest.raises(RuntimeError):
        importlib.import_module(module_name)
    assert seen == []
    source.write_text("VALUE = 22\n")
    importlib.invalidate_caches()
    assert importlib.import_module(module_name).VALUE == 22
    assert seen == [sys.modules[module_name]]


def test_a_module_that_is_run_is_not_imported(module_name: str, tmp_path: Path) -> None:
    """`python -m`, by which users start verl. In a process of its own: pytest's loader cannot do that."""
    script = f"""
import importlib, runpy, sys
from rejuv_plugin.integrations.verl.import_hook import after_import
sys.path.insert(0, {str(tmp_path)!r})
seen = []
after_import({module_name!r}, seen.append)
assert runpy.run_module({module_name!r}, run_name="__main__", alter_sys=True)["VALUE"] == 1
assert seen == []
module = importlib.import_module({module_name!r})
assert seen == [module]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


def test_a_module_that_is_being_imported_is_an_error(module_name: str, tmp_path: Path) -> None:
    (tmp_path / f"{module_name}.py").write_text(
        "from rejuv_plugin.integrations.verl.import_hook import after_import\nafter_import(__name__, print)\n"
    )
    with pytest.raises(ImportError, match="being imported right now"):
        importlib.import_module(module_name)


def test_a_missing_module_fails_as_ever() -> None:
    after_import("a_module_that_nobody_has", lambda m: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("a_module_that_nobody_has")
