# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The neuron maps, and reset sets as records and as files."""

import json
from pathlib import Path

import pytest
import torch
from architectures import VARIANTS, make, shapes_of, stored

from rejuv_plugin.checkpoint import reset_file
from rejuv_plugin.errors import InputError
from rejuv_plugin.neurons.modules import chosen, modules_of
from rejuv_plugin.neurons.reset_set import Chosen, ResetSet, check_fits, difference, from_json, shares


def modules_for(variant: str):
    model = make(variant)
    return model, modules_of(model.config.to_dict(), shapes_of(model), "--sft")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_matrix_of_every_layer_is_covered_once(variant: str) -> None:
    model, modules = modules_for(variant)
    shapes = shapes_of(model)
    rows = {m.weight: [] for m in modules}
    for m in modules:
        assert m.has_bias == (f"{m.path}.bias" in shapes)
        if m.kind == "column":
            assert (m.start, m.count) == (0, shapes[m.weight][1])
        else:
            rows[m.weight] += range(m.start, m.start + m.count)
    matrices = {name for name, shape in shapes.items() if ".layers." in name and len(shape) == 2}
    # The router is no neuron.
    matrices -= {name for name in matrices if name.endswith(("mlp.gate.weight", "block_sparse_moe.gate.weight"))}
    assert set(rows) == matrices
    columns = {m.weight for m in modules if m.kind == "column"}
    assert {name.rsplit(".", 2)[1] for name in columns} <= {"o_proj", "down_proj", "w2"}
    assert all(rows[name] == list(range(shapes[name][0])) for name in matrices - columns)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_scored_in_the_model_is_what_is_reset_in_the_checkpoint(variant: str) -> None:
    model, modules = modules_for(variant)
    tensors = stored(model)
    for m in modules:
        holder = model.get_submodule(m.path)
        if m.kind == "column":
            own = holder.weight if m.expert is None else holder.down_proj[m.expert]
            assert torch.equal(tensors[m.weight], own), m.name
        else:
            own = holder.weight if m.expert is None else holder.gate_up_proj[m.expert]
            rows = slice(m.start, m.start + m.count), slice(m.offset, m.offset + m.count)
            assert torch.equal(tensors[m.weight][rows[0]], own[rows[1]]), m.name


def test_fused_projections_are_split_by_part() -> None:
    _, modules = modules_for("phi3")
    parts = {m.name.rpartition(".")[2]: (m.start, m.count) for m in modules if ".layers.0." in m.name}
    assert parts["qkv_proj:q"] == (0, 32)
    assert parts["qkv_proj:k"] == (32, 16)
    assert parts["qkv_proj:v"] == (48, 16)
    assert parts["gate_up_proj:up"] == (40, 40)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "olmo9", "num_hidden_layers": 1}, 'ARCHITECTURES["olmo9"] = STANDARD'),
        ({"model_type": "olmoe9", "num_experts": 8}, "another mixture of experts"),
        ({}, "model_type None"),
        ({"model_type": "llama"}, "num_hidden_layers"),
        ({"model_type": "llama", "num_hidden_layers": 1}, "model.layers.0.self_attn.q_proj.weight"),
    ],
)
def test_models_without_a_map_are_refused_with_the_way_out(config: dict, says: str) -> None:
    with pytest.raises(InputError, match=r"^--sft: ") as caught:
        modules_of(config, {}, "--sft")
    assert says in str(caught.value)


def test_a_fused_projection_of_another_size_is_refused() -> None:
    model = make("phi3")
    shapes = shapes_of(model) | {"model.layers.1.self_attn.qkv_proj.weight": (65, 32)}
    with pytest.raises(InputError, match=r"64 rows in model.layers.1.*got 65"):
        modules_of(model.config.to_dict(), shapes, "--sft")


def test_include_and_exclude() -> None:
    _, modules = modules_for("qwen2")
    kept = chosen(modules, "*.k_proj *.v_proj", "*.layers.0.*", "--include")
    assert [m.name for m in kept] == [f"model.layers.{i}.self_attn.{p}_proj" for i in (1, 2) for p in "kv"]
    assert chosen(modules, "*", "", "--include") == modules
    with pytest.raises(InputError, match=r"^--include: .*fit none"):
        chosen(modules, "*.w_proj", "", "--include")


K = "model.layers.0.self_attn.k_proj"
DOWN = "model.layers.1.mlp.down_proj"


def a_set(k: tuple[int, ...] = (1, 3), down: tuple[int, ...] = ()) -> ResetSet:
    modules = {K: Chosen("row", 4, k), DOWN: Chosen("column", 12, down)}
    return ResetSet("qwen2", modules, {"ratio": 0.01}, {"base": "ab"}, {"positions": 3})


def test_a_set_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "set.json"
    reset_file.save(a_set(), path)
    assert reset_file.load(path, "--reset-set") == a_set()
    assert [p.name for p in path.parent.iterdir()] == ["set.json"]


def test_the_digest_is_of_the_neurons_alone() -> None:
    assert a_set().digest == ResetSet("qwen2", {K: Chosen("row", 4, (1, 3))}).digest
    assert a_set().digest != a_set(k=(1, 2)).digest
    assert a_set(k=(1,), down=()).digest != a_set(k=(), down=(1,)).digest


def test_shares_are_sums_over_sums() -> None:
    found = a_set(down=(0, 1, 2))
    assert shares(found) == {K: 0.5, DOWN: 0.25}
    assert shares(found, {K: "all", DOWN: "all"}) == {"all": 5 / 16}


def test_difference() -> None:
    found = difference(a_set(), a_set(k=(3, 2), down=(5,)))
    assert found[K] == {"only_ours": [1], "only_theirs": [2], "jaccard": 1 / 3}
    assert found[DOWN] == {"only_ours": [], "only_theirs": [5], "jaccard": 0.0}


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c.update(format=2), "format 2"),
        (lambda c: c.pop("modules"), "a reset set, got something else"),
        (lambda c: c["modules"][K].update(indices=[3, 1]), "ascending indices below 4"),
        (lambda c: c["modules"][K].update(indices=[1, 1]), "ascending"),
        (lambda c: c["modules"][K].update(indices=[1, 4]), "ascending"),
        (lambda c: c["modules"][K].update(indices=[-1]), "ascending"),
        (lambda c: c["modules"][K].update(indices=[True]), "ascending"),
        (lambda c: c["modules"][K].update(indices=[1, 2]), "digest"),
        (lambda c: c["modules"][K].update(count=None), "something else"),
        (lambda c: c.update(modules=[1]), "something else"),
    ],
)
def test_a_broken_set_is_refused(edit, says: str) -> None:
    content = json.loads(json.dumps(a_set().to_json()))
    edit(content)
    with pytest.raises(InputError, match=r"^--reset-set: ") as caught:
        from_json(content, "--reset-set")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_file_that_is_no_set(tmp_path: Path, text: str) -> None:
    (tmp_path / "set.json").write_text(text)
    with pytest.raises(InputError, match=r"^--reset-set: "):
        reset_file.load(tmp_path / "set.json", "--reset-set")
    with pytest.raises(InputError, match=r"^--reset-set: .*No such file"):
        reset_file.load(tmp_path / "gone.json", "--reset-set")


def test_a_set_of_another_model_does_not_fit() -> None:
    _, modules = modules_for("qwen2")
    good = ResetSet("qwen2", {modules[0].name: Chosen(modules[0].kind, modules[0].count, (0,))})
    check_fits(good, modules, "--reset-set")
    for name, kind, count in ((K, "row", 4), (DOWN, "row", 40), ("nowhere", "row", 4)):
        with pytest.raises(InputError, match=r"^--reset-set: expected neurons of this model"):
            check_fits(ResetSet("qwen2", {name: Chosen(kind, count, ())}), modules, "--reset-set")
