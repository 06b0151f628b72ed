# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
import importlib
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


def test_a_missing_module_fails_as_ever() -> None:
    after_import("a_module_that_nobody_has", lambda m: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("a_module_that_nobody_has")
