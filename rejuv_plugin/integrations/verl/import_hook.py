# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Act on a module right after it was imported, without importing it ourselves.

verl loads its plugins in every process, at the end of ``import verl``. Importing the trainer or the engines there would
cost each of them seconds, and some import verl back. So we wait until somebody else needs the module.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

Action = Callable[[ModuleType], None]


def after_import(name: str, action: Action) -> None:
    """Call ``action(module)`` once, as soon as the module ``name`` has been executed (now, if it already was)."""
    module = sys.modules.get(name)
    if module is None:
        _finder().actions.setdefault(name, []).append(action)
    elif getattr(module.__spec__, "_initializing", False):
        raise ImportError(f"{name} is being imported right now: too late to wait for it, too early to act on it")
    else:
        action(module)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.actions:
            return None
        specs = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None:
            assert spec.loader is not None, f"{fullname} is a namespace package: no code runs that one could wait for"
            spec.loader = _Loader(spec.loader, self.actions)
        return spec


class _Loader(importlib.abc.Loader):
    """Runs the module as its own loader would, then the actions; everything else is the own loader's."""

    def __init__(self, inner: importlib.abc.Loader, actions: dict[str, list[Action]]) -> None:
        self._inner, self._actions = inner, actions

    def __getattr__(self, name: str) -> Any:
        # `python -m MODULE` asks for the code instead, and runs it as another module: that is no import.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Hand the module back to its own loader first: resource readers and pickling look at __loader__.
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        # Only now: an import that failed, or a mere look for the module, leaves the actions armed.
        for action in self._actions.pop(module.__name__, []):
            action(module)


def _finder() -> _Finder:
    # Both of our entry points share one finder, so two actions on one module do not shadow each other.
    for finder in sys.meta_path:
        if isinstance(finder, _Finder):
            return finder
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    return finder
