# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe on several ranks against the probe in one process; what ranks hold; and how they end together."""

import gc
import json
import pickle
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import ranks
import tiny
import torch
import torch.distributed as dist
from architectures import VARIANTS, make
from checkpoints import edit_json, set_weights, weights
from transformers import PreTrainedModel

from rejuv_plugin.checkpoint import plan_fusion, read_inputs
from rejuv_plugin.checkpoint.layout import Checkpoint, read_checkpoint
from rejuv_plugin.checkpoint.plan import Plan
from rejuv_plugin.config import FusionConfig, ResetConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.neurons.modules import Module
from rejuv_plugin.neurons.reset_set import ResetSet
from rejuv_plugin.probe.capture import Call
from rejuv_plugin.probe.dialogue import Example, examples_of
from rejuv_plugin.probe.load import load_model
from rejuv_plugin.probe.measure import input_digests, measure, measure_sharded
from rejuv_plugin.probe.ranks import ALONE, Ranks, World
from rejuv_plugin.probe.sharded import load as sharded_load
from rejuv_plugin.probe.sharded.load import load_sharded
from rejuv_plugin.probe.sharded.model import Part
from rejuv_plugin.probe.tallies import Tallies

CPU = torch.device("cpu")
ROWS = [{"prompt": f"{a}+{b}=", "response": f"{a + b}"} for a in range(2) for b in range(3)]
# What differs between runs, and nothing else may.
USAGE = ("device", "seconds", "peak_memory_bytes")
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


def save_pair(root: Path, variant: str, dtype: torch.dtype = torch.float32, **options: Any) -> None:
    tokenizer = tiny.tokenizer()
    for side, seed in (("base", 0), ("sft", 1)):
        model = make(variant, seed, vocab_size=len(tokenizer)).to(dtype)
        model.save_pretrained(root / side, **options)
        tokenizer.save_pretrained(root / side)


class Job:
    """The arguments of `measure_sharded`, and what `measure` finds."""

    def __init__(self, root: Path, examples: int = len(ROWS), **settings: Any) -> None:
        (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:examples]))
        values = {"ratio": 0.05, "positions": 2, "calibration": str(root / "data.jsonl")} | settings
        self.plan = plan_fusion(str(root / "base"), str(root / "sft"), FusionConfig())
        self.settings, self.inputs = ResetConfig(**values), read_inputs(self.plan)
        self.examples = examples_of(self.plan.sft, self.settings, "--calibration")

    @cached_property
    def alone(self) -> ResetSet:
        threads = torch.get_num_threads()
        # As the ranks have: the last bits depend on it.
        torch.set_num_threads(1)
        try:
            return measure(self.plan, self.settings, self.inputs, "--")
        finally:
            torch.set_num_threads(threads)

    def sharded(self, plan: Plan | None = None, examples: Sequence[Example] = (), progress: Any = None) -> ResetSet:
        digests = input_digests(self.inputs, self.settings, "--")
        arguments = (plan or self.plan, self.settings, examples or self.examples, digests, "--", CPU)
        # As a trainer ships them.
        return measure_sharded(*pickle.loads(pickle.dumps(arguments)), progress)


def without_usage(found: ResetSet) -> dict[str, Any]:
    content = found.to_json()
    return content | {"statistics": {name: v for name, v in content["statistics"].items() if name not in USAGE}}


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


# How ranks end together


def errors_of(job: Job, world: int, *arguments: Any) -> list[str]:
    """What every rank ends with; afterwards all are in step, as a measurement shows."""

    def fail_then_measure() -> tuple[str, bool]:
        mine = [a[dist.get_rank()] if isinstance(a, list) else a for a in arguments]
        with pytest.raises(InputError) as caught:
            job.sharded(*mine)
        return str(caught.value), without_usage(job.sharded()) == expected

    expected = without_usage(job.alone)
    found = ranks.run(fail_then_measure, world)
    assert all(in_step for _, in_step in found)
    return [message for message, _ in found]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (("config.json",), "--sft: expected weight files that every rank can read, got No such file"),
        ((), "--sft: expected a causal language model that transformers loads, got "),
    ],
)
def test_a_rank_that_does_not_see_the_files(
    jobs: dict[str, Job], tmp_path: Path, files: Sequence[str], says: str
) -> None:
    plan = jobs["llama"].plan
    for file in files:
        (tmp_path / file).write_text((plan.sft.root / file).read_text())
    elsewhere = replace(plan, sft=replace(plan.sft, root=tmp_path))
    first, second, third = errors_of(jobs["llama"], 3, [plan, elsewhere, plan])
    assert first == second == third
    assert first.startswith(says)
    assert "(on rank 1 of 3, " in first


def test_a_checkpoint_without_a_tensor(tmp_path: Path) -> None:
    save_pair(tmp_path, "qwen3-moe")
    job, tensors = Job(tmp_path), weights(tmp_path / "sft")
    del tensors["model.layers.0.mlp.experts.3.up_proj.weight"], tensors["model.norm.weight"]
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((tmp_path / "sft" / "config.json").read_text())
    set_weights(broken, tensors)
    plan = replace(job.plan, sft=replace(read_checkpoint(str(broken), "--sft"), tensors=job.plan.sft.tensors))
    first, second = errors_of(job, 2, plan)
    assert first == second
    assert first.startswith("--sft: expected weight files that every rank can read, got")
    plan = replace(job.plan, base=read_checkpoint(str(broken), "--base"))
    assert ["mlp.experts.3.up_proj.weight" in error for error in errors_of(job, 2, plan)] == [True] * 2
    edit_json(broken / "config.json", hidden_act="of our own")
    assert "--base: expected a causal language model" in errors_of(job, 2, plan)[1]


@pytest.mark.parametrize("side", ["base", "sft"])
def test_weights_that_are_not_finite(tmp_path: Path, side: str) -> None:
    save_pair(tmp_path, "qwen2")
    job, tensors = Job(tmp_path), weights(tmp_path / side)
    # A token that only the second example has.
    token = (set(job.examples[1].ids) - set(job.examples[0].ids) - set(job.examples[2].ids)).pop()
    tensors["model.embed_tokens.weight"][token] = float("nan")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "config.json").write_text((tmp_path / side / "config.json").read_text())
    set_weights(bad, tensors)
    plan = replace(job.plan, **{side: read_checkpoint(str(bad), f"--{side}")})
    found = errors_of(job, 3, plan)
    assert len(set(found)) == 1
    assert found[0].startswith(f"--{side}: expected finite activations on the calibration data, ")
    assert "got NaN or infinity in example 1 (on rank 1 of 3, " in found[0]


def test_a_rank_that_fails_in_the_middle_of_a_pass(jobs: dict[str, Job]) -> None:
    job = jobs["experts"]
    good = job.examples[0]
    # No such token: the first module of the first pass fails; no such position: what comes after its last module.
    for bad, says in ((Example((5, 9999), (1,)), "index out of range"), (Example((5, 6), (9,)), "out of bounds")):
        found = errors_of(job, 2, None, (good, bad))
        assert found[0] == found[1]
        assert re.match(
            "--base: expected work that succeeds on every rank, got IndexError on rank 1 of 2, .*: ", found[0]
        )
        assert says in found[0]


@pytest.mark.parametrize(("owner", "method", "call"), [(Call, "again", 2), (Part, "gather", 20)])
def test_a_gpu_that_has_no_memory_left(
    jobs: dict[str, Job], monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, call: int
) -> None:
    """In a backward pass, and when a layer is to be gathered. The error is a stand-in: there is no GPU here."""
    original, calls = getattr(owner, method), 0

    def full(*args: Any) -> Any:
        nonlocal calls
        if dist.is_initialized() and dist.get_rank() == 1:
            calls += 1
            if calls == call:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(*args)

    monkeypatch.setattr(owner, method, full)
    first, second = errors_of(jobs["llama"], 2)
    assert first == second
    assert first.startswith("--sft: expected room for 1/2 of the model in float32, ")
    assert re.search(r"OutOfMemoryError on rank 1 of 2, .*: CUDA out of memory\.", first)
    assert "--max_tokens" in first
