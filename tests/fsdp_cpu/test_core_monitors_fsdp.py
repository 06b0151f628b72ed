# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The monitors of tokens and gradients on verl's FSDP engines, against an unsharded model."""

from pathlib import Path
from typing import Any

import architectures
import pytest
import rollouts
import torch
from rank_server import Server

VOCABULARY = architectures.SIZES["vocab_size"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for variant in ("llama-biases", "qwen2-tied", "qwen3-moe"):
        architectures.make(variant).save_pretrained(root / variant)
    return root


def steps() -> list:
    return [rollouts.rollouts(seed, VOCABULARY) for seed in range(2)]


def look(path: Path, strategy: str, temperature: float, options: dict, more: dict) -> tuple[dict, list[float]]:
    """On a rank."""
    from fsdp_cpu import engines

    return rollouts.measured(engines.build(path, strategy, **options), steps(), temperature, **more)


def root_mean_square(norms: list[float]) -> float:
    return torch.tensor(norms).double().square().mean().sqrt().item()


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
@pytest.mark.parametrize(
    ("variant", "world", "options", "more"),
    [
        ("llama-biases", 1, {}, {}),
        ("qwen2-tied", 2, {"param_offload": True, "optimizer_offload": True}, {"use_remove_padding": False}),
        ("llama-biases", 4, {}, {}),
        ("qwen3-moe", 4, {"fsdp_size": 2, "use_orig_params": True}, {}),
    ],
    ids=str,
)
def test_values_are_those_of_an_unsharded_model(
    server: Server, models: Path, strategy: str, variant: str, world: int, options: dict, more: dict
) -> None:
    found = server.run(look, world, models / variant, strategy, 0.7, options, more)
    expected = rollouts.expected(models / variant, steps(), 0.7)
    for values, norms in found:
        assert values.keys() == expected.keys()
        for key, value in expected.items():
            assert values[key] == pytest.approx(value, rel=1e-5), key
        assert values["grad_norm"] == pytest.approx(root_mean_square(norms), rel=1e-5)


def beside_verl(path: Path, strategy: str, options: dict) -> tuple[dict, float | None, float]:
    """On a rank: values after one step, and what verl says: its gradient norm, if it says so
    on this rank, and the mean of its entropies."""
    import torch.distributed as dist
    from verl.workers.utils.padding import no_padding_2_padding

    from fsdp_cpu import engines
    from rejuv_plugin.integrations.verl.monitors import gradients, tokens

    engine = engines.build(path, strategy, **options)
    monitors = [tokens.attach(engine), gradients.attach(engine)]
    engine.initialize()
    totals = torch.zeros(2, dtype=torch.float64)

    def loss(model_output: dict, data: Any, dp_group: Any = None) -> Any:
        if engine.is_mp_src_rank_with_outputs():
            entropies = no_padding_2_padding(model_output["entropy"].detach(), data)
            mask = torch.nested.to_padded_tensor(data["response_mask"], 0, output_size=entropies.shape)
            totals.add_(torch.stack([(entropies.double() * mask).sum(), mask.sum()]))
        return rollouts.loss(model_output, data)

    mine = rollouts.shard(engine, steps()[0])
    with engine.train_mode():
        output = engine.train_batch(rollouts.batch(mine, 0.7, calculate_entropy=True), loss_function=loss)
    dist.all_reduce(totals)
    return rollouts.summed(monitors), output["metrics"].get("grad_norm"), (totals[0] / totals[1]).item()


@pytest.mark.parametrize(
    ("world", "options", "tolerance"),
    [
        # Each rank has a part of the sequences, and attention sees no more: without flash attention the values are not
        # those of a whole model, but still those of verl.
        (2, {"ulysses_sequence_parallel_size": 2, "model": {"use_remove_padding": True}}, 1e-5),
        (2, {"model": {"lora_rank": 4}}, 1e-5),
        # Loss scaling. verl takes entropies of float16 logits in float16.
        (2, {"dtype": "fp16"}, 2e-3),
    ],
    ids=str,
)
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_values_are_those_of_verl(
    server: Server, models: Path, strategy: str, world: int, options: dict, tolerance: float
) -> None:
    found = server.run(beside_verl, world, models / "llama-biases", strategy, options)
    norm = found[0][1]
    for values, _, entropy in found:
        assert values["grad_norm"] == pytest.approx(norm, rel=1e-5)
        assert values["entropy"] == pytest.approx(entropy, rel=tolerance)
        parts = [*values["grad_norm_attention"], *values["grad_norm_mlp"]]
        if "lora_rank" in options.get("model", {}):
            # An adapter has no embeddings.
            assert values["grad_norm"] == pytest.approx(sum(part**2 for part in parts) ** 0.5, rel=1e-5)
            assert values["grad_norm_embeddings"] != values["grad_norm_embeddings"]


def rows_of_padded() -> tuple[list[int], list[int]]:
    """On a rank: rows of the response tokens, of one batch in verl's two forms."""
    from torch.nn.functional import pad
    from verl.utils import tensordict_utils
    from verl.workers.utils.padding import left_right_2_no_padding

    from rejuv_plugin.integrations.verl.monitors.tokens import response_rows

    chosen = steps()[0]
    sides = []
    for prompt, response, mask in chosen:
        left, right = 9 - len(prompt), 11 - len(response)
        attention = pad(torch.ones(len(prompt) + len(response), dtype=torch.long), (left, right))
        sides.append((pad(prompt, (left, 0)), pad(response, (0, right)), pad(mask, (0, right)), attention))
    prompts, responses, masks, attention = (torch.stack(side) for side in zip(*sides, strict=True))
    padded = tensordict_utils.get_tensordict(
        {
            "input_ids": torch.cat([prompts, responses], 1),
            "attention_mask": attention,
            "position_ids": attention.cumsum(1) - 1,
            "prompts": prompts,
            "responses": responses,
            "response_mask": masks,
        },
        non_tensor_dict={},
    )
    nested = rollouts.batch(chosen, 1.0)
    return response_rows(left_right_2_no_padding(padded)).tolist(), response_rows(nested).tolist()


def test_response_tokens_are_found_in_both_forms_of_a_batch(server: Server) -> None:
    padded, nested = server.run(rows_of_padded, 1)[0]
    expected, start = [], 0
    for prompt, response, mask in steps()[0]:
        expected += [start + len(prompt) - 1 + i for i in range(len(response)) if mask[i]]
        start += len(prompt) + len(response)
    assert padded == nested == expected


def learn(path: Path, strategy: str, watched: bool) -> tuple[dict, list[dict]]:
    """On a rank."""
    from fsdp_cpu import engines

    return rollouts.five_steps(engines.build(path, strategy, lr=1e-2), watched, engines.exported)


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_monitors_do_not_change_a_bit(server: Server, models: Path, strategy: str) -> None:
    path = models / "llama-biases"
    with_monitors, without = (server.run(learn, 2, path, strategy, watched)[0] for watched in (True, False))
    assert with_monitors[0].keys() == without[0].keys()
    assert all(torch.equal(tensor, without[0][name]) for name, tensor in with_monitors[0].items())
    # The policy was seen to change.
    assert len({said["entropy"] for said in with_monitors[1]}) == 5


def fused(path: Path) -> list[str]:
    """On a rank: what the monitors raise when verl has no logits, and what they raise afterwards."""
    from types import SimpleNamespace

    from fsdp_cpu import engines
    from rejuv_plugin.integrations.verl.monitors import tokens

    engine = engines.build(path, "fsdp2")
    engine.prepare_model_outputs = lambda *_: "as verl has it"
    monitor = tokens.attach(engine)
    engine.initialize()
    output = SimpleNamespace(logits=None)
    said = [engine.prepare_model_outputs(output=output, output_args={}, micro_batch={"response_mask": None})]
    for _ in range(2):
        try:
            monitor.sums()
        except ValueError as error:
            said.append(str(error))
    return said


def test_a_monitor_that_fails_lets_verl_go_on_and_says_so_later(server: Server, models: Path) -> None:
    said, first, second = server.run(fused, 1, models / "llama-biases")[0]
    assert said == "as verl has it"
    assert first == second
    assert first.startswith("actor_rollout_ref.model.use_fused_kernels: expected false ")
