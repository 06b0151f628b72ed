# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The house has floors: an import may only point down. Inside a room, none leads back to where it began."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import rejuv_plugin

ROOT = Path(rejuv_plugin.__file__).parent

# From the ground up. A room may import from rooms on lower floors and from itself, never from its own floor or above.
FLOORS = [
    {"errors"},
    {"config"},
    {"ops", "neurons"},
    {"checkpoint"},
    {"probe", "loading"},
    {"monitors"},
    {"diagnose"},
    {"tune"},
    {"report"},
    {"integrations"},
    {"cli"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# What only one room may touch.
OWNERS = {
    "verl": {"integrations"},
    "ray": {"integrations"},
    "hydra": {"integrations"},
    "omegaconf": {"integrations"},
    "transfer_queue": {"integrations"},
    "click": {"cli"},
    "mergekit": {"ops"},
    "triton": {"ops"},
}
FILES = sorted(ROOT.rglob("*.py"))
_ROLLOUT = "rejuv_plugin.integrations.verl.cpu.rollout"
# The package loads the class when verl first asks for it; the class takes its name from the package.
LEAD_BACK = {(_ROLLOUT, f"{_ROLLOUT}.replica")}


def imports_of(file: Path) -> set[str]:
    """Absolute dotted names of everything ``file`` imports, at any depth, lazily or not."""
    package = ["rejuv_plugin", *file.relative_to(ROOT).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def violations_of(file: Path) -> list[str]:
    room = file.relative_to(ROOT).parts[0].removesuffix(".py")
    found = []
    for name in imports_of(file):
        top, *rest = name.split(".")
        if top in OWNERS and room not in OWNERS[top]:
            found.append(f"{name} (only {OWNERS[top]} may)")
        other = rest[0] if top == "rejuv_plugin" and rest else room
        if other != room and FLOOR_OF.get(other, -1) >= FLOOR_OF[room]:
            found.append(f"{name} (floor {FLOOR_OF[other]} from floor {FLOOR_OF[room]})")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_every_import_points_down(file: Path) -> None:
    if file != ROOT / "__init__.py":
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
        assert room in FLOOR_OF, f"{room}: a new room needs a floor here and a line in README's map"
        assert not violations_of(file)


def graph_of(files: list[Path]) -> dict[str, set[str]]:
    """By module of ours the modules of ours that it imports, at any depth, lazily or for its types alone."""
    names = {".".join(["rejuv_plugin", *file.relative_to(ROOT).with_suffix("").parts]): file for file in files}
    names = {name.removesuffix(".__init__"): file for name, file in names.items()}

    def module(name: str) -> str:
        while name and name not in names:
            name = name.rpartition(".")[0]
        return name

    return {name: {module(other) for other in imports_of(file)} - {"", name} for name, file in names.items()}


def test_no_import_leads_back() -> None:
    graph = graph_of(FILES)
    for module, other in LEAD_BACK:
        graph[module].remove(other)
    TopologicalSorter(graph).prepare()


def test_an_import_that_leads_back_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "ops"
    room.mkdir()
    (room / "__init__.py").write_text("from .a import x\n")
    (room / "a.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import Y\n")
    (room / "b.py").write_text("def f():\n    from . import a\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    with pytest.raises(CycleError) as caught:
        TopologicalSorter(graph_of(sorted(room.iterdir()))).prepare()
    assert set(caught.value.args[1]) == {"rejuv_plugin.ops.a", "rejuv_plugin.ops.b"}


def test_the_package_itself_imports_nothing() -> None:
    assert not imports_of(ROOT / "__init__.py")


def test_an_arrow_that_points_up_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "ops" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("import verl\ndef f():\n    from ..checkpoint import plan\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert len(violations_of(bad)) == 2
