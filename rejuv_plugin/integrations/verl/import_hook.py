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

Action = Callable[[ModuleType], None]


def after_import(name: str, action: Action) -> None:
    """Call ``action(module)`` once, as soon as the module ``name`` has been executed (now, if it already was)."""
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        action(module)
        return
    _finder().actions.setdefault(name, []).append(action)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        actions = self.actions.pop(fullname, None)
        if actions is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                break
        else:
            # Not installed here: let the import fail as it would have, and stay armed for a later attempt.
            self.actions[fullname] = actions
            return None
        assert spec.loader is not None, (
            f"{fullname} is a namespace package: nothing is executed that one could wait for"
        )
        spec.loader = _Loader(spec.loader, actions)
        return spec


class _Loader(importlib.abc.Loader):
    """Runs the module as its own loader would, then the actions; everything else is the own loader's."""

    def __init__(self, inner: importlib.abc.Loader, actions: list[Action]) -> None:
        self._inner, self._actions = inner, actions

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Hand the module back to its own loader first: resource readers and pickling look at __loader__.
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        for action in self._actions:
            action(module)


def _finder() -> _Finder:
    # Both of our entry points share one finder, so two actions on one module do not shadow each other.
    for finder in sys.meta_path:
        if isinstance(finder, _Finder):
            return finder
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    return finder
