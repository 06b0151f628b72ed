# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe on several ranks against the probe in one process, and what ranks hold."""

import gc
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from architectures import VARIANTS, make
from checkpoints import set_weights, weights
from sharded_job import CPU, Job, save_pair, without_usage
from transformers import PreTrainedModel

from rejuv_plugin.checkpoint.layout import Checkpoint, read_checkpoint
from rejuv_plugin.config import ResetConfig
from rejuv_plugin.neurons.modules import Module
from rejuv_plugin.probe.load import load_model
from rejuv_plugin.probe.ranks import ALONE, Ranks, World
from rejuv_plugin.probe.sharded import load as sharded_load
from rejuv_plugin.probe.sharded.load import load_sharded
from rejuv_plugin.probe.sharded.model import Part
from rejuv_plugin.probe.tallies import Tallies

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", {}, {}),
    "each logit alone": ("llama-biases", {}, {"gradient": "each"}),
    "biases, several files": ("qwen2", {"max_shard_size": "20KB"}, {}),
    "tied, bfloat16, one module": ("qwen2-tied", {"dtype": torch.bfloat16}, {"include": "*.0.*.k_proj"}),
    "post norms": ("gemma2", {}, {"rule": "aggregate"}),
    "gemma3": ("gemma3", {}, {"ranking": "signed"}),
    "fused": ("phi3", {}, {"select": "random", "cap": 0.1}),
    "experts": ("qwen3-moe", {}, {"rule": "aggregate"}),
    "experts, each logit alone": ("mixtral", {}, {"gradient": "each", "cap": 0.1}),
    "one example": ("qwen3", {}, {"examples": 1}),
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    found = {}
    for name, (variant, saved, settings) in CASES.items():
        root = tmp_path_factory.mktemp("pair")
        save_pair(root, variant, **saved)
        found[name] = Job(root, **settings)
    return found


@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_rank_finds_the_set_that_one_process_finds(jobs: dict[str, Job], world: int) -> None:
    # One rank is one process with other machinery: a dense model and a mixture will do.
    names = CASES if world > 1 else ("llama", "experts")
    alone = {name: jobs[name].alone for name in names}
    of_ranks = ranks.run(lambda: {name: jobs[name].sharded() for name in names}, world)
    for name, expected in alone.items():
        assert any(c.indices for c in expected.modules.values())
        for found in of_ranks:
            assert found[name].modules == expected.modules, name
            assert without_usage(found[name]) == without_usage(expected), name
            assert found[name] == of_ranks[0][name]
        assert of_ranks[0][name].statistics["device"] == f"cpu, {world} ranks"


@pytest.mark.parametrize("world", [2, 3])
def test_sums_are_in_the_order_of_the_examples(world: int) -> None:
    """Of numbers that cancel: what is added between 1e30 and -1e30 is lost, what comes before or after is not."""
    modules = [Module(name, name, name, "layer", "row", 0, 64, False, None, 0) for name in "abc"]
    settings = ResetConfig(ratio=0.5, calibration="in memory", rule="aggregate", ranking="signed")
    generator = torch.Generator().manual_seed(0)
    of_half = [torch.rand(len(modules), 64, 4, generator=generator) for _ in range(2)]
    for values in of_half:
        values[..., 0], values[..., 1] = 1e30, -1e30
    orders = [torch.rand(values.shape, generator=generator).argsort(-1) for values in of_half]
    even, odd = (values.gather(-1, order) for values, order in zip(of_half, orders, strict=True))
    # [module, neuron, example]; the last round of two or three ranks is not a full one.
    scores = torch.stack([even, odd], -1).flatten(-2)[..., :7]

    def selected(us: Ranks) -> Any:
        tallies = Tallies(modules, settings, us)
        for start in range(0, 7, us.size):
            numbers = range(start, min(start + us.size, 7))
            if us.rank < len(numbers):
                example = scores[..., numbers[us.rank]]
                tallies.add({m.name: of_module[None] for m, of_module in zip(modules, example, strict=True)})
            tallies.end_round(numbers)
        return tallies.selected(), tallies.overlaps()

    assert ranks.run(lambda: selected(World(CPU, "--")), world) == [selected(ALONE)] * world


def test_halves_of_an_expert_without_tokens_are_not_compared() -> None:
    modules = [Module(name, name, name, "layer", "row", 0, 8, False, None, 0) for name in ("used", "idle")]
    tallies = Tallies(modules, ResetConfig(ratio=0.5, calibration="in memory"), ALONE)
    for number in range(2):
        tallies.add({"used": torch.arange(8.0)[None]} | ({"idle": torch.arange(8.0)[None]} if number == 0 else {}))
        tallies.end_round(range(number, number + 1))
    assert tallies.overlaps() == {"used": 1.0, "idle": None}


def test_progress_is_by_rounds(jobs: dict[str, Job]) -> None:
    def steps() -> list[tuple[str, int, int]]:
        seen: list[tuple[str, int, int]] = []
        jobs["llama"].sharded(progress=lambda *step: seen.append(step))
        return seen

    expected = [(phase, done, 6) for phase in ("base", "sft") for done in (4, 6)]
    assert ranks.run(steps, 4) == [expected] * 4


# What a rank holds


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """Every architecture, and what the cases above vary."""
    roots = {name: tmp_path_factory.mktemp("one") for name in (*VARIANTS, "bfloat16", "several files")}
    for name, root in roots.items():
        model = make(name if name in VARIANTS else "qwen2-tied", seed=1)
        model = model.bfloat16() if name == "bfloat16" else model
        model.save_pretrained(root, max_shard_size="20KB" if name == "several files" else "1GB")
    return {name: read_checkpoint(str(root), "--sft") for name, root in roots.items()}


def gather_all(model: Any) -> None:
    """All parts whole at once, which a measurement never does."""
    for part in dict.fromkeys(vars(module).get("rejuv_part") for module in model.modules()):
        if part:
            part.gather()


def local_bytes(model: Any) -> int:
    return sum(p.to_local().untyped_storage().nbytes() for p in model.parameters())


@pytest.mark.parametrize(("world", "slack"), [(3, 1.2), (4, 1.06)])
def test_a_rank_holds_its_share_and_the_shares_are_the_model(
    checkpoints: dict[str, Checkpoint], world: int, slack: float
) -> None:
    def held() -> dict[str, tuple[int, int]]:
        found = {}
        for variant, checkpoint in checkpoints.items():
            whole, shared = load_model(checkpoint, CPU), load_sharded(checkpoint, CPU)
            mine = local_bytes(shared)
            gather_all(shared)
            for kind in ("named_parameters", "named_buffers"):
                theirs, ours = (dict(getattr(model, kind)(remove_duplicate=False)) for model in (whole, shared))
                assert theirs.keys() == ours.keys()
                assert all(torch.equal(ours[name], theirs[name]) for name in theirs), variant
            assert shared.config._attn_implementation == whole.config._attn_implementation
            found[variant] = mine, sum(p.nbytes for p in whole.parameters())
        return found

    for of_rank in ranks.run(held, world):
        for variant, (mine, whole) in of_rank.items():
            # Rows that do not go round cost a little, of models as tiny as these; so do 5 experts on 3 ranks.
            assert mine <= slack * whole / world, (variant, mine / whole)


def test_one_layer_is_whole_at_a_time_and_one_model_in_memory(
    jobs: dict[str, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def alive() -> int:
        return sum(isinstance(thing, PreTrainedModel) for thing in gc.get_objects())

    def counts() -> tuple[int, list[int], int]:
        whole, most, models = 0, 0, []
        gather, free, skeleton = Part.gather, Part.free, sharded_load.skeleton

        def counted(part: Part) -> None:
            nonlocal whole, most
            gather(part)
            whole += 1
            most = max(most, whole)

        def uncounted(part: Part) -> None:
            nonlocal whole
            free(part)
            whole -= 1

        def watched(*args: Any) -> Any:
            models.append(alive())
            return skeleton(*args)

        monkeypatch.setattr(Part, "gather", counted)
        monkeypatch.setattr(Part, "free", uncounted)
        monkeypatch.setattr(sharded_load, "skeleton", watched)
        jobs["experts"].sharded()
        assert whole == 0
        return most, models, alive()

    assert ranks.run(counts, 2) == [(1, [0, 0], 0)] * 2


def stored_once_as_the_head(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")


def stored_twice(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


def stored_twice_with_other_values(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1


@pytest.mark.parametrize("change", [stored_once_as_the_head, stored_twice, stored_twice_with_other_values])
def test_tied_embeddings_however_they_are_stored(tmp_path: Path, change: Any) -> None:
    save_pair(tmp_path, "qwen2-tied")
    tensors = weights(tmp_path / "sft")
    change(tensors)
    set_weights(tmp_path / "sft", tensors)
    checkpoint = read_checkpoint(str(tmp_path / "sft"), "--sft")

    def both() -> list[bool]:
        model = load_sharded(checkpoint, CPU)
        gather_all(model)
        return [torch.equal(ours, theirs) for ours, theirs in zip(ends(model), expected, strict=True)]

    def ends(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return model.model.embed_tokens.weight, model.lm_head.weight

    expected = ends(load_model(checkpoint, CPU))
    assert ranks.run(both, 2) == [[True, True]] * 2
