# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Who loads the SFT checkpoint through `loading.serving` gets, bit for bit, what `rejuv apply` would have written."""

import sys
from pathlib import Path

import architectures
import pytest
import safetensors
import safetensors.torch
import torch
from checkpoints import make_pair, save_model, set_weights, weights
from transformers import AutoModelForCausalLM

from rejuv_plugin.checkpoint import apply, plan_fusion, plan_reset
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.loading import Values, by_tensor, needed, parts, serving
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.neurons.reset_set import Chosen, ResetSet
from rejuv_plugin.ops.drift import Drift

ALPHA = 0.3


def some_reset(plan) -> ResetSet:
    """Every third neuron of every module but the first."""
    modules = modules_of(plan.sft.config, plan.sft.shapes, "--sft")[1:]
    chosen = {m.name: Chosen(m.kind, m.count, tuple(range(0, m.count, 3))) for m in modules}
    return ResetSet(plan.sft.config["model_type"], chosen)


def planned(base: Path, sft: Path, *, reset: bool = True, omega: float = 0.7, **fusion):
    plan = plan_fusion(str(base), str(sft), FusionConfig(alpha=ALPHA, **fusion))
    return plan_reset(plan, some_reset(plan), omega, "--reset-set") if reset else plan


def load(path: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).state_dict()


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert not [name for name in expected if not torch.equal(found[name], expected[name])]


@pytest.mark.parametrize("variant", ["qwen2", "qwen2-tied", "llama-biases", "gemma2", "phi3", "qwen3-moe", "mixtral"])
@pytest.mark.parametrize("shard", ["1GB", "40KB"])
def test_transformers_builds_the_model_of_the_output(variant: str, shard: str, tmp_path: Path) -> None:
    for seed, side in enumerate(("base", "sft")):
        architectures.make(variant, seed).bfloat16().save_pretrained(tmp_path / side, max_shard_size=shard)
    plan = planned(tmp_path / "base", tmp_path / "sft")
    apply(plan, tmp_path / "output")
    before = load(tmp_path / "sft")
    with Values(plan) as values, serving(values, tmp_path / "sft"):
        found = load(tmp_path / "sft")
    assert values.drift.keys() == values.fused.keys()
    assert_same(found, load(tmp_path / "output"))
    assert any(not torch.equal(found[name], before[name]) for name in found)
    assert_same(load(tmp_path / "sft"), before)


@pytest.mark.parametrize("workers", [1, 3])
def test_values_are_the_bytes_of_the_output_and_its_drift(workers: int, tmp_path: Path) -> None:
    # More than one piece a tensor, with a last one that is not whole.
    base, sft = make_pair(tmp_path, vocab_size=40_001, hidden_size=64)
    plan = planned(base, sft)
    manifest = apply(plan, tmp_path / "output")
    with Values(plan, workers) as values:
        found = {name: values.tensor(name) for name in values.fused}
    assert_same(found, weights(tmp_path / "output"))
    for side in (0, 1):
        total = sum((both[side] for both in values.drift.values()), start=type(values.drift["lm_head.weight"][0])())
        assert total.relative == pytest.approx(
            manifest["drift_from_base"][("sft", "output")[side]]["relative_l2"], rel=1e-12
        )


def test_rows_that_only_the_sft_checkpoint_has_are_kept(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", 0, vocab_size=64)
    sft = save_model(tmp_path / "sft", 1, vocab_size=80)
    plan = planned(base, sft, grown_vocabulary="keep")
    apply(plan, tmp_path / "output")
    with Values(plan) as values:
        assert_same({name: values.tensor(name) for name in values.fused}, weights(tmp_path / "output"))


def stacked(tmp_path: Path) -> Path:
    """A pair with experts in stacks, more than one piece each, and the kernel of a convolution."""
    base, sft = make_pair(tmp_path)
    for seed, side in enumerate((base, sft)):
        generator = torch.Generator().manual_seed(seed)
        more = {
            "model.layers.0.mlp.experts.gate_up_proj": torch.randn(3, 640, 512, generator=generator).bfloat16(),
            "model.layers.0.mlp.experts.down_proj": torch.randn(3, 32, 48, generator=generator).bfloat16(),
            "model.layers.0.conv.weight": torch.randn(40, 40, 4, generator=generator).bfloat16(),
        }
        set_weights(side, weights(side) | more)
    return tmp_path


@pytest.mark.parametrize("workers", [1, 3])
def test_an_expert_is_made_when_it_is_taken_out_of_its_stack(workers: int, tmp_path: Path) -> None:
    root = stacked(tmp_path)
    plan = planned(root / "base", root / "sft", reset=False)
    manifest = apply(plan, root / "output")
    expected = weights(root / "output")
    gate_up, down = (f"model.layers.0.mlp.experts.{name}_proj" for name in ("gate_up", "down"))
    with Values(plan, workers, apart=True) as values, serving(values, root / "sft"):
        file = safetensors.safe_open(root / "sft" / "model.safetensors", framework="pt")
        stack = file.get_tensor(gate_up)
        assert isinstance(stack, torch.Tensor)
        assert (stack.shape, stack.ndim, stack.dtype) == ((3, 640, 512), 3, torch.bfloat16)
        assert not values.drift
        assert torch.equal(stack[1], expected[gate_up][1])
        assert torch.equal(stack.transpose(-1, -2)[-1], expected[gate_up][2].T)
        assert values.drift.keys() == {f"{gate_up}[1]", f"{gate_up}[2]"}
        with pytest.raises(IndexError):
            stack[3]
        with pytest.raises(TypeError, match="read only"):
            stack[0] = 0
        # Whatever else a loader does with it.
        down_stack = file.get_tensor(down)
        for found in (
            down_stack.transpose(-1, -2).contiguous().mT,
            torch.cat([down_stack[:1], down_stack[1:]]),
            torch.stack(list(down_stack)),
            torch.empty_like(expected[down]).copy_(down_stack),
            down_stack.float().bfloat16(),
        ):
            assert type(found) is torch.Tensor
            assert torch.equal(found, expected[down])
        for name in expected:
            assert torch.equal(file.get_tensor(name), expected[name]), name
    assert list(parts(plan, True)) == sorted(values.drift, key=parts(plan, True).index)
    assert by_tensor(plan, values.drift).keys() == values.fused.keys()
    total = sum((both[1] for both in by_tensor(plan, values.drift).values()), start=Drift())
    assert total.relative == pytest.approx(manifest["drift_from_base"]["output"]["relative_l2"], rel=1e-12)


def test_an_expert_that_was_not_read_is_told_by_its_number(tmp_path: Path) -> None:
    root = stacked(tmp_path)
    with Values(planned(root / "base", root / "sft", reset=False), apart=True) as values:
        values.tensor("model.layers.0.mlp.experts.down_proj", 1)
        (sft, output) = values.drift["model.layers.0.mlp.experts.down_proj[1]"]
        assert output.moved == pytest.approx(ALPHA**2 * sft.moved, rel=1e-2)
        unread = [part for part in parts(values.plan, True) if part not in values.drift]
        assert "model.layers.0.mlp.experts.down_proj[2]" in unread
        assert needed(values.plan, "model.layers.0.mlp.experts.down_proj[2]")


def test_a_copy_of_the_checkpoint_elsewhere_is_served_too_and_another_is_not(tmp_path: Path) -> None:
    import shutil

    base, sft = make_pair(tmp_path)
    plan = planned(base, sft)
    shutil.copytree(sft, tmp_path / "shm")
    with Values(plan) as values, serving(values, tmp_path / "shm"):
        found = safetensors.safe_open(tmp_path / "shm" / "model.safetensors", framework="pt")
        assert torch.equal(found.get_tensor("lm_head.weight"), values.tensor("lm_head.weight"))
        other = safetensors.safe_open(base / "model.safetensors", framework="pt")
        assert torch.equal(other.get_tensor("lm_head.weight"), weights(base)["lm_head.weight"])


def test_what_is_not_fused_is_read_from_the_file(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    plan = planned(base, sft, reset=False, exclude_tensors="*norm*")
    with Values(plan) as values, serving(values, sft):
        file = safetensors.safe_open(sft / "model.safetensors", framework="pt")
        assert torch.equal(file.get_tensor("model.norm.weight"), weights(sft)["model.norm.weight"])
        assert file.get_slice("lm_head.weight").get_shape() == [64, 32]
        assert safetensors.torch.load_file(sft / "model.safetensors").keys() == plan.sft.tensors.keys()
    assert values.drift.keys() == values.fused.keys()


def test_values_are_not_read_from_files_that_are_closed(tmp_path: Path) -> None:
    plan = planned(*make_pair(tmp_path), reset=False)
    with Values(plan) as values, serving(values, plan.sft.root):
        kept = safetensors.safe_open(plan.sft.root / "model.safetensors", framework="pt").get_slice("lm_head.weight")
    with pytest.raises(ValueError, match=r"^lm_head\.weight: expected to be read before"):
        kept[:]


def test_a_process_that_flushes_small_numbers_is_refused(tmp_path: Path) -> None:
    with Values(planned(*make_pair(tmp_path), reset=False)) as values:
        try:
            if not torch.set_flush_denormal(True):
                pytest.skip("this processor cannot")
            with pytest.raises(RuntimeError, match="flushes subnormal numbers to zero"):
                values.tensor("lm_head.weight")
        finally:
            torch.set_flush_denormal(False)


def test_not_a_number_is_refused_by_the_name_of_its_tensor(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    tensors = weights(base)
    tensors["model.norm.weight"][3] = torch.nan
    set_weights(base, tensors)
    with (
        Values(planned(base, sft)) as values,
        pytest.raises(InputError, match=r"^model\.norm\.weight: expected finite"),
    ):
        values.tensor("model.norm.weight")


def test_the_name_is_put_back_after_an_error(tmp_path: Path) -> None:
    import transformers.modeling_utils as holder

    original = safetensors.safe_open
    plan = planned(*make_pair(tmp_path), reset=False)
    with Values(plan) as values:
        served = serving(values, plan.sft.root)
        served.__enter__()
        kept_elsewhere = safetensors.safe_open
        assert holder.safe_open is kept_elsewhere is not original
        assert not served.__exit__(KeyError, KeyError(), None)
    assert holder.safe_open is safetensors.safe_open is original
    file = kept_elsewhere(plan.sft.root / "model.safetensors", framework="pt")
    assert torch.equal(file.get_tensor("lm_head.weight"), weights(plan.sft.root)["lm_head.weight"])


def test_a_module_that_imports_the_name_is_served_whenever_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mbridge imports its reader of DeepSeek-V3 when the first model is loaded: the reference, then the actor."""
    (tmp_path / "lazily_imported.py").write_text("from safetensors import safe_open\n")
    monkeypatch.syspath_prepend(tmp_path)
    plan = planned(*make_pair(tmp_path), reset=False)
    file = plan.sft.root / "model.safetensors"
    for _ in ("reference", "actor"):
        with Values(plan) as values, serving(values, plan.sft.root):
            import lazily_imported

            with lazily_imported.safe_open(file, framework="pt") as opened:
                found = opened.get_tensor("lm_head.weight")
            assert torch.equal(found, values.tensor("lm_head.weight"))
        with lazily_imported.safe_open(file, framework="pt") as opened:
            assert torch.equal(opened.get_tensor("lm_head.weight"), weights(plan.sft.root)["lm_head.weight"])
    monkeypatch.delitem(sys.modules, "lazily_imported")
