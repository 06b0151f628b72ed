# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What is seen of weights as they stream by, against the whole tensors."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import save_file

from rejuv_plugin.checkpoint.headers import read_header
from rejuv_plugin.integrations.verl.monitors import stream
from rejuv_plugin.monitors import groups
from rejuv_plugin.monitors.places import RUN, places, read
from rejuv_plugin.monitors.weights import WeightsMonitor

SHAPES = {
    "model.embed_tokens.weight": (50, 16),
    "model.layers.0.mlp.up_proj.weight": (32, 16),
    "model.layers.0.input_layernorm.weight": (16,),
    "model.layers.1.mlp.up_proj.weight": (32, 16),
    "model.visual.layers.0.weight": (8, 16),
}


def weights(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


def flat(weights: dict[str, torch.Tensor], *within: str) -> torch.Tensor:
    return torch.cat([value.double().reshape(-1) for name, value in weights.items() if any(w in name for w in within)])


def measured(monitor: WeightsMonitor, *streams: dict[str, torch.Tensor]) -> dict:
    for each in streams:
        assert [name for name, _ in monitor.watch(each.items())] == list(each)
    values = monitor.values(monitor.sums())
    return {"numbers": values.numbers, "layers": values.layers}


def test_of_whole_tensors_the_numbers_are_exact() -> None:
    base, first, second, third = (weights(seed) for seed in range(4))
    monitor = WeightsMonitor(2, 4096, lambda name, elements, at: base[name].reshape(-1)[at].double())
    found = measured(monitor, first, second)["numbers"]
    assert found["drift_start"] == pytest.approx(
        float((flat(second, "") - flat(first, "")).norm() / flat(first, "").norm())
    )
    assert found["update_ratio"] == found["drift_start"], "the first stream is what the first step changes"
    found = measured(monitor, third)
    for name, other in {"update_ratio": second, "drift_start": first, "drift_base": base}.items():
        expected = (flat(third, "") - flat(other, "")).norm() / flat(other, "").norm()
        assert found["numbers"][name] == pytest.approx(float(expected), rel=1e-12)
        for layer, value in enumerate(found["layers"][name]):
            part = f"model.layers.{layer}."
            expected = (flat(third, part) - flat(other, part)).norm() / flat(other, part).norm()
            assert value == pytest.approx(float(expected), rel=1e-12)


def test_bits_are_counted_in_bfloat16() -> None:
    before = weights(0)
    after = {name: value.clone() for name, value in before.items()}
    after["model.layers.1.mlp.up_proj.weight"][:4] *= 1.5
    after["model.layers.0.mlp.up_proj.weight"] *= 1 + 1e-6  # below what bfloat16 can hold, but for ties
    monitor = WeightsMonitor(2, 4096, lambda name, elements, at: None)
    found = measured(monitor, before, after)
    assert found["layers"]["changed_bits"][1] == 4 / 32
    assert found["layers"]["changed_bits"][0] < 0.01
    assert found["numbers"]["changed_bits"] == pytest.approx(64 / sum(v.numel() for v in before.values()), abs=0.003)
    assert "drift_base" not in found["numbers"]


def test_an_update_of_weights_in_16_bits_has_a_name_of_its_own() -> None:
    """It is no measure of the step that was made: a sixteenth of a step is about a quarter of it."""
    generator = torch.Generator().manual_seed(5)
    before, step = (torch.randn(400, 500, generator=generator) for _ in range(2))
    name, found = "model.layers.0.mlp.up_proj.weight", {}
    for dtype in (torch.float32, torch.bfloat16):
        for size in (1e-4, 1e-4 / 16):
            monitor = WeightsMonitor(1, before.numel(), lambda name, elements, at: None)
            streams = [{name: value.to(dtype)} for value in (before, before + size * step)]
            found[dtype, size] = measured(monitor, *streams)
    for part in ("numbers", "layers"):
        names = [{key for key in each[part] if key.startswith("update")} for each in found.values()]
        assert names == [{"update_ratio"}] * 2 + [{"update_ratio_rounded"}] * 2
    large, small, large_rounded, small_rounded = (next(iter(each["numbers"].values())) for each in found.values())
    assert large == pytest.approx(16 * small, rel=0.02)
    assert large_rounded > 3 * large
    assert large_rounded == pytest.approx(4 * small_rounded, rel=0.2)


def test_a_router_in_float32_makes_the_rest_no_better() -> None:
    streams = [{name: value.bfloat16() if "mlp" in name else value for name, value in weights(seed).items()}
               for seed in range(2)]  # fmt: skip
    found = measured(WeightsMonitor(2, 4096, lambda name, elements, at: None), *streams)["numbers"]
    assert "update_ratio" not in found
    assert "update_ratio_rounded" in found


def test_a_sample_estimates_the_whole() -> None:
    generator = torch.Generator().manual_seed(5)
    one, two = (torch.randn(400, 500, generator=generator) for _ in range(2))
    monitor = WeightsMonitor(1, 4096, lambda name, elements, at: None)
    name = "model.layers.0.mlp.up_proj.weight"
    found = measured(monitor, {name: one}, {name: one + 0.01 * two})["numbers"]["update_ratio"]
    # Of normal numbers: sqrt((3 - 1) / (4 * 4096)) is 1.1 % for each of the two norms.
    assert found == pytest.approx(float((0.01 * two).norm() / one.norm()), rel=0.05)


@pytest.mark.parametrize(
    ("name", "shape", "sampled"),
    [
        ("model.layers.0.mlp.experts.7.up_proj.weight", (100, 128), RUN),
        # All of a layer's in one: as many of them as of experts that are stored one by one.
        ("model.layers.0.mlp.experts.gate_up_proj", (128, 64, 16), 128 * RUN),
        ("model.layers.0.feed_forward.experts.down_proj", (4, 64, 64), 1024),
        ("model.layers.0.mlp.experts.down_proj_bias", (4, 8), 32),
        ("model.layers.0.mlp.up_proj.weight", (100, 128), 1024),
    ],
)
def test_every_expert_has_its_share(name: str, shape: tuple[int, ...], sampled: int) -> None:
    monitor = WeightsMonitor(1, 1024, lambda name, elements, at: None)
    list(monitor.watch([(name, torch.zeros(shape))]))
    assert len(monitor.start[name]) == sampled


def test_the_error_of_a_sample_is_as_said_where_whole_rows_move() -> None:
    """Of a row in a hundred, by changes that are normally distributed."""
    rows, columns, elements = 20_000, 256, 4096
    generator, errors = torch.Generator().manual_seed(0), []
    for draw in range(200):
        moves = torch.rand(rows, generator=generator) < 0.01
        at = places(f"embeddings {draw}", rows * columns, elements)
        single = torch.randint(rows * columns, (elements,), generator=generator)
        estimates = []
        for sample in (at, single):
            change = moves[sample // columns] * torch.randn(elements, generator=generator)
            estimates.append(float((change.square().sum() * rows * columns / elements).sqrt()))
        errors.append(torch.tensor(estimates) / float((moves.sum() * columns).sqrt()) - 1)
    in_runs, alone = torch.stack(errors).square().mean(0).sqrt().tolist()
    assert in_runs == pytest.approx(0.8, abs=0.1)
    assert alone == pytest.approx(((3 / 0.01 - 1) / 4 / elements) ** 0.5, rel=0.15)


def test_a_stream_that_breaks_off_was_not_seen() -> None:
    monitor = WeightsMonitor(2, 64, lambda name, elements, at: None)
    measured(monitor, weights(0))
    stream = monitor.watch(weights(1).items())
    next(stream)
    stream.close()
    # Nor is what was not streamed taken for weights that stand still.
    assert measured(monitor) == {"numbers": {}, "layers": {}}
    found = measured(monitor, weights(2))["numbers"]
    assert found["drift_start"] > 0
    assert "update_ratio" not in found, "nothing was seen in the step before"


def test_a_resumed_run_keeps_its_start() -> None:
    first, second, third = (weights(seed, torch.bfloat16) for seed in range(3))
    whole, resumed = (WeightsMonitor(2, 4096, lambda name, elements, at: None) for _ in range(2))
    measured(whole, first)
    resumed.restore(whole.start)
    expected = measured(whole, second, third)["numbers"]["drift_start"]
    assert measured(resumed, second, third)["numbers"]["drift_start"] == expected > 0


def test_the_start_of_a_run_with_another_sample_is_not_compared(capsys: pytest.CaptureFixture) -> None:
    first, second, third = (weights(seed) for seed in range(3))
    whole = WeightsMonitor(2, 4096, lambda name, elements, at: None)
    resumed = WeightsMonitor(2, 64, lambda name, elements, at: None)
    measured(whole, first)
    resumed.restore(whole.start)
    found = measured(resumed, second, third)["numbers"]
    assert found["update_ratio"] > 0
    # Norms are small enough to be whole in both samples. They would be taken for the model.
    assert "drift_start" not in found or math.isnan(found["drift_start"])
    assert capsys.readouterr().out.count("the run began with another monitors.sample") == 1


def test_places_are_drawn_by_name_in_runs() -> None:
    assert places("a", 100, 4096).tolist() == list(range(100))
    drawn = places("a", 10_000_000, 4096)
    assert torch.equal(drawn, places("a", 10_000_000, 4096))
    assert not torch.equal(drawn, places("b", 10_000_000, 4096))
    assert len(drawn) == len(drawn.unique()) == 4096
    assert (drawn.view(-1, RUN).diff() == 1).all()
    assert drawn[-1] < 10_000_000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("sample", [64, 128, 4096])
def test_places_are_read_from_a_file(tmp_path: Path, dtype: torch.dtype, sample: int) -> None:
    tensor = torch.randn(30, 50).to(dtype)
    save_file({"before": torch.ones(3), "w": tensor}, tmp_path / "model.safetensors")
    info = read_header(tmp_path / "model.safetensors", "--base").tensors["w"]
    at = places("w", 1500, sample)
    assert torch.equal(read(tmp_path, info, at), tensor.reshape(-1)[at].double())


@pytest.mark.parametrize(
    ("kind", "tied"),
    [
        ("Qwen3Config", False),
        ("Qwen3Config", True),
        # The language model's part has no flag, or another one.
        *(("Qwen2_5_VLConfig", False), ("Qwen3VLConfig", True), ("Glm4vConfig", False)),
        *(("Qwen3VLMoeConfig", False), ("Mistral3Config", True), ("InternVLConfig", True)),
    ],
)
def test_a_head_counts_where_it_is_a_weight_of_its_own(monkeypatch: pytest.MonkeyPatch, kind: str, tied: bool) -> None:
    monkeypatch.setattr(stream.dist, "get_rank", lambda: 0)
    config = getattr(transformers, kind)(tie_word_embeddings=tied)
    weights = {"model.embed_tokens.weight": torch.ones(2), "lm_head.weight": torch.ones(2)}
    engine = SimpleNamespace(
        model_config=SimpleNamespace(hf_config=config), get_per_tensor_param=lambda: (weights.items(), None)
    )
    monitor = stream.StreamedWeights(engine, 64, None)
    for _ in range(2):
        assert dict(engine.get_per_tensor_param()[0]) == weights
    assert monitor.sums()["update_of"].sum() == (2 if tied else 4)


@pytest.mark.parametrize("way", ["quantised", "differences"])
def test_what_is_streamed_in_place_of_weights_is_no_weight(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(stream.dist, "get_rank", lambda: 0)
    config = transformers.Qwen3Config(num_hidden_layers=2)
    codes = {"model.norm.weight_packed": torch.ones(2, dtype=torch.uint8)}
    engine = SimpleNamespace(
        model_config=SimpleNamespace(hf_config=config),
        get_per_tensor_param=lambda: (codes.items(), None),
        get_per_tensor_param_delta_shard=lambda **_: (iter(()), None),
        _qat_enabled=way == "quantised",
    )
    monitor = stream.StreamedWeights(engine, 64, None)
    if way == "quantised":
        assert dict(engine.get_per_tensor_param()[0]) == codes
    else:
        assert list(engine.get_per_tensor_param_delta_shard()[0]) == []
    with pytest.raises(NotImplementedError, match="QAT" if way == "quantised" else "delta_sharded"):
        monitor.sums()


def test_groups() -> None:
    prompts = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    scores = [1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0]
    found = groups.signals(scores, prompts, 0.5, compared=True)
    assert found["pass_rate"] == 5 / 12
    assert found["zero_advantage_groups"] == 2 / 3
    # (1 - p) ** 4 is a half: that often nobody of four passes.
    assert (1 - found["pass_rate_floor"]) ** 4 == pytest.approx(0.5)
    assert groups.signals([], [], 0.5, compared=True) == {}
    # A critic's advantage needs no group.
    assert groups.signals(scores, prompts, 0.5, compared=False) == {"pass_rate": 5 / 12}


def test_answers_that_stand_alone_have_no_floor() -> None:
    assert groups.signals([-1.0, 1.0], ["a", "b"], 0.5, compared=True) == {"pass_rate": 0.5}
    few = groups.signals([0.0, 1.0, 1.0], ["a", "a", "b"], 0.5, compared=True)
    assert few == {"pass_rate": 2 / 3, "zero_advantage_groups": 0.0}
    pairs = groups.signals([0.0, 1.0, 1.0, 1.0], ["a", "a", "b", "b"], 0.5, compared=True)
    assert pairs["pass_rate_floor"] == pytest.approx(1 - 0.5**0.5)


def test_a_base_that_is_not_on_this_node_has_no_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = torch.arange(4)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked for it"))
    for path in (None, Path("org/model"), tmp_path):
        assert stream._base(path)("w", 4, at) is None
    save_file({"w": torch.arange(4.0)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert stream._base(tmp_path)("w", 4, at).tolist() == [0, 1, 2, 3]
