# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""From two checkpoints and calibration data to the reset set."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from architectures import make, shapes_of
from checkpoints import edit_json
from measured_pair import ROWS, measured, own_copy, save_pair, with_nan
from transformers import AutoModelForCausalLM

from rejuv_plugin.checkpoint import plan_fusion, read_inputs
from rejuv_plugin.checkpoint.layout import read_checkpoint
from rejuv_plugin.checkpoint.provenance import content_key
from rejuv_plugin.config import FusionConfig, ResetConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.neurons.architectures import STANDARD
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.ops.distribution import entropy
from rejuv_plugin.probe import attribute as attribute_module
from rejuv_plugin.probe import cache, entropy_scan, passes
from rejuv_plugin.probe.attribute import attribute
from rejuv_plugin.probe.capture import trace
from rejuv_plugin.probe.dialogue import Example
from rejuv_plugin.probe.entropy_scan import largest_gaps
from rejuv_plugin.probe.load import load_model
from rejuv_plugin.probe.measure import measure
from rejuv_plugin.probe.passes import scan


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def own(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_copy(pair, tmp_path, monkeypatch)


def test_entropy() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(entropy(p.log()), torch.tensor([1.5, 2.0, 0.0]) * torch.tensor(2.0).log())
    assert entropy(torch.tensor([1.0, float("nan")])).isnan()
    assert entropy(torch.tensor([1.0, float("inf")])).isnan()


def test_the_scan_is_the_models_own_entropy_however_it_is_cut(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(pair / "sft").eval()
    ids = torch.arange(40, 60)
    logits = model(ids[None]).logits[0].double()
    expected = torch.distributions.Categorical(logits=logits).entropy()
    example = Example(tuple(ids.tolist()), (3, 4, 19))
    (whole,) = scan(model, [example], "--sft")
    torch.testing.assert_close(whole.double(), expected[[2, 3, 18]], rtol=1e-5, atol=1e-6)
    widths = []
    monkeypatch.setattr(entropy_scan, "LOGITS", 2 * logits.shape[1])
    monkeypatch.setattr(entropy_scan, "entropy", lambda x: widths.append(len(x)) or entropy(x))
    (cut,) = scan(model, [example], "--sft")
    torch.testing.assert_close(cut, whole)
    assert widths == [2, 1]


def test_the_largest_gaps() -> None:
    base, sft = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([1.5, 0.5, 3.0, 1.0])
    assert largest_gaps(base, sft, 2) == [0, 2]
    assert largest_gaps(base, sft, 3) == [0, 1, 2]
    assert largest_gaps(base, sft, 9) == [0, 1, 2, 3]


def test_a_set_is_the_union_of_what_the_parts_say(pair: Path) -> None:
    """Once more by hand, from transformers' own models and sorted lists."""
    found = measured(pair)
    tokenizer = tiny.tokenizer()
    base, sft = (
        AutoModelForCausalLM.from_pretrained(pair / side).eval().requires_grad_(False) for side in ("base", "sft")
    )
    shapes = {name: tuple(p.shape) for name, p in sft.named_parameters()}
    modules = modules_of(sft.config.to_dict(), shapes, "--sft")
    expected: dict[str, set[int]] = {m.name: set() for m in modules}
    for row in ROWS:
        prompt = f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        before, after = (tokenizer(t)["input_ids"] for t in (prompt, f"{prompt}{row['response']}<|im_end|>\n"))
        targets = range(len(before), len(after) - 1)
        gaps = {}
        for model, sign in ((base, 1), (sft, -1)):
            log_p = torch.log_softmax(model(torch.tensor([after])).logits[0], -1)
            for t in targets:
                gaps[t] = gaps.get(t, 0.0) - sign * float((log_p[t - 1].exp() * log_p[t - 1]).sum())
        kept = sorted(sorted(targets, key=lambda t: -abs(gaps[t]))[:2])
        scores = attribute(sft, STANDARD, modules, trace(sft, STANDARD, torch.tensor(after)), kept).scores
        for m in modules:
            count = -(-m.count * 5 // 100)
            for position in scores[m.name]:
                expected[m.name] |= set(position.abs().argsort(descending=True)[:count].tolist())
    assert {name: set(c.indices) for name, c in found.modules.items()} == expected


def test_what_a_set_tells_about_itself(pair: Path) -> None:
    found = measured(pair)
    said = found.statistics
    assert said["examples"] == len(ROWS)
    assert said["positions"] == 2 * len(ROWS)
    assert said["response_tokens"] == sum(len(row["response"]) + 1 for row in ROWS)
    assert 0 < said["reconstruction_error"]["relative"] < 1e-5
    assert 0 <= said["cuts"]["close"] <= said["cuts"]["in_all"] == said["positions"] * len(found.modules)
    assert said["reconstruction_error"]["mean_absolute"] <= said["reconstruction_error"]["max_absolute"]
    assert 0 < said["entropy"]["sft"]["mean"] < 10
    assert said["entropy"]["base"] != said["entropy"]["sft"]
    assert set(said["jaccard_of_halves"]) == set(found.modules)
    assert all(0 < share <= 1 for share in said["jaccard_of_halves"].values())
    assert found.settings["positions"] == 2
    assert measured(pair, cap=0.5).statistics["cuts"] is None, "votes decide, and not each position"
    assert set(found.inputs) == {"base", "base_config", "sft", "calibration"}
    assert measured(pair).modules == found.modules


def test_settings_change_the_set_as_they_say(pair: Path) -> None:
    top = measured(pair)
    sizes = {name: len(c.indices) for name, c in top.modules.items()}
    for which in ("bottom", "random"):
        control = measured(pair, select=which)
        assert {name: len(c.indices) for name, c in control.modules.items()} == sizes
        assert control.digest != top.digest
    only = measured(pair, include="*.k_proj *.v_proj", exclude="*.layers.0.*")
    assert set(only.modules) == {f"model.layers.1.self_attn.{p}_proj" for p in "kv"}
    assert all(only.modules[name] == top.modules[name] for name in only.modules)
    aggregate = measured(pair, rule="aggregate")
    assert all(len(c.indices) == -(-c.count * 5 // 100) for c in aggregate.modules.values())
    assert measured(pair, ranking="signed").digest != top.digest
    assert all(len(c.indices) == c.count for c in measured(pair, ratio=1.0).modules.values())


@pytest.mark.parametrize("variant", ["qwen3-moe", "mixtral"])
def test_experts_that_no_kept_token_is_routed_to_are_never_touched(pair: Path, tmp_path: Path, variant: str) -> None:
    tokenizer = tiny.tokenizer()
    for side, seed in (("base", 0), ("sft", 1)):
        make(variant, seed, vocab_size=len(tokenizer)).save_pretrained(tmp_path / side)
        tokenizer.save_pretrained(tmp_path / side)
    # One kept token, which two experts of a layer see.
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "1", "response": "2"}))
    found = measured(tmp_path, ratio=1.0, positions=1)
    shares: dict[str, set[float]] = {}
    for name, chosen in found.modules.items():
        if ".layers.0." in name and ".experts." in name:
            expert = name.split(".experts.")[1].split(".")[0]
            shares.setdefault(expert, set()).add(len(chosen.indices) / chosen.count)
    assert sorted(shares.values(), key=max) == [{0.0}] * (len(shares) - 2) + [{1.0}] * 2
    assert not any("gate.weight" in name or name.endswith("mlp.gate") for name in found.modules)
    assert found.statistics["reconstruction_error"]["relative"] < 1e-5


def test_a_cap_on_attention_logits_is_kept(tmp_path: Path) -> None:
    make("gemma2", attn_logit_softcapping=0.1).save_pretrained(tmp_path)
    own = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    torch.testing.assert_close(
        load_model(read_checkpoint(str(tmp_path), "--sft"), torch.device("cpu"))(ids).logits, own(ids).logits
    )


def test_scores_that_are_not_finite_are_refused(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_nan("sft")(own)
    monkeypatch.setattr(passes, "entropies", lambda model, hidden, key, number: torch.zeros(len(hidden)))
    with pytest.raises(InputError, match=r"^--sft: .*NaN or infinity in example 0"):
        measured(own)


def test_a_residual_stream_that_is_not_as_the_map_says(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rejuv_plugin.neurons.architectures import ARCHITECTURES, GEMMA

    monkeypatch.setitem(ARCHITECTURES, "qwen2", GEMMA)
    with pytest.raises(InputError, match=r"^--sft: .*a reconstruction error of "):
        measured(own)


def test_a_set_is_measured_once(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_fusion("base", "sft", FusionConfig())
    settings = ResetConfig(ratio=0.05, positions=2, calibration="data.jsonl")
    once = lambda plan, settings: cache.found_once(plan, settings, "cache").chosen  # noqa: E731
    first = once(plan, settings)
    calls: list[float] = []
    monkeypatch.setattr(cache, "measure", lambda *a: calls.append(a[1].ratio) or measure(*a))
    assert once(plan, settings) == first
    # How far the neurons are reset, and which fusion they are reset in, are not the set's business.
    other = ResetConfig(ratio=0.05, positions=2, calibration="data.jsonl", omega=0.5)
    assert once(plan_fusion("base", "sft", FusionConfig(0.4)), other) == first
    assert calls == []
    assert once(plan, ResetConfig(ratio=0.1, positions=2, calibration="data.jsonl")) != first
    with (own / "data.jsonl").open("a") as file:
        file.write(json.dumps(ROWS[0]) + "\n")
    once(plan, settings)
    assert calls == [0.1, 0.05]
    # The fusion is the same, but the base says something else when it is run.
    key = content_key(plan, read_inputs(plan))
    edit_json(own / "base" / "config.json", rms_norm_eps=0.5)
    plan = plan_fusion("base", "sft", FusionConfig())
    corrected = once(plan, settings)
    assert calls == [0.1, 0.05, 0.05]
    assert corrected.statistics["entropy"]["base"] != first.statistics["entropy"]["base"]
    assert content_key(plan, read_inputs(plan)) == key


# What a set costs and how it is bounded


def test_a_cap_bounds_every_module(pair: Path) -> None:
    whole, capped = measured(pair), measured(pair, cap=0.1)
    assert any(len(c.indices) > c.count // 10 for c in whole.modules.values())
    for name, c in capped.modules.items():
        assert len(c.indices) == min(len(whole.modules[name].indices), c.count // 10)
        assert set(c.indices) <= set(whole.modules[name].indices)


def test_long_dialogues_are_cut(pair: Path) -> None:
    whole, cut = measured(pair), measured(pair, max_tokens=18)
    assert whole.statistics["cut"] == 0
    assert 0 < cut.statistics["cut"] <= len(ROWS)
    assert cut.statistics["tokens"] <= 18 * len(ROWS) < whole.statistics["tokens"]
    assert cut.statistics["response_tokens"] < whole.statistics["response_tokens"]


def test_progress_is_by_example_and_ends_at_all(pair: Path) -> None:
    plan, seen = plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig()), []
    settings = ResetConfig(ratio=0.05, calibration=str(pair / "data.jsonl"))
    measure(plan, settings, read_inputs(plan), "--", lambda *step: seen.append(step))
    assert seen == [(phase, i + 1, len(ROWS)) for phase in ("base", "sft") for i in range(len(ROWS))]


def test_a_graph_of_one_layer_at_a_time() -> None:
    """What is alive during the backward pass does not grow with the number of layers."""
    saved: dict[int, int] = {}
    for layers in (2, 8):
        model = make("llama", num_hidden_layers=layers)
        modules = modules_of(model.config.to_dict(), shapes_of(model), "--sft")
        seen, alive, peak = trace(model, STANDARD, torch.arange(3, 43)), 0, 0

        class Counted:
            def __init__(self, tensor: torch.Tensor) -> None:
                nonlocal alive, peak
                self.tensor = tensor
                alive += tensor.numel()
                peak = max(peak, alive)

            def __del__(self) -> None:
                nonlocal alive
                alive -= self.tensor.numel()

        with torch.autograd.graph.saved_tensors_hooks(Counted, lambda counted: counted.tensor):
            attribute(model, STANDARD, modules, seen, [10, 20])
        saved[layers] = peak
    assert saved[8] <= 1.2 * saved[2] > 0


def test_each_keeps_no_more_of_a_gradient_than_its_own_position(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama")
    modules = modules_of(model.config.to_dict(), shapes_of(model), "--sft")
    kept_bytes = []
    original = attribute_module._backward

    def counted(*args: object) -> object:
        of_hidden, scores = original(*args)
        kept_bytes.append(sum(s.untyped_storage().nbytes() for s in scores.values()))
        return of_hidden, scores

    monkeypatch.setattr(attribute_module, "_backward", counted)
    seen = trace(model, STANDARD, torch.arange(3, 43))
    attribute(model, STANDARD, modules, seen, [10, 20, 30, 35], each=True)
    rows = sum(m.count for m in modules if m.kind == "row" and m.layer == "model.layers.0")
    assert kept_bytes == [4 * 4 * rows] * 3
