# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The FrozenLake recipe's own script under verl: several turns, masks, gymnasium's reward, monitors."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium
import pytest
from verl_jobs.job import RECIPES, Script, importing, on_vllm, plasticity

RECIPE = RECIPES / "agentic_frozenlake"

# Seconds of training: enough to answer with moves, so that episodes have several turns.
MAKE = """
import sys
from dataclasses import replace
from pathlib import Path
from lake_settings import LakeSettings
from make_lake import make_all
small = dict(lakes=300, train_prompts=16, eval_in=4, eval_out=4, sft_games=4, layers=2, hidden_size=int(sys.argv[2]))
make_all(replace(LakeSettings(), **small, base_steps=80, base_batch=8, base_lr=1e-2), 0, Path(sys.argv[1]))
"""

# The recipe's loop, which also writes down what it hands verl.
RECORDING = """
import json
import os
from frozenlake_loop import FrozenLakeLoop


class Recording(FrozenLakeLoop):
    async def run(self, sampling_params, **row):
        output = await super().run(sampling_params, **row)
        kept = output.model_dump(include={"response_ids", "response_mask", "reward_score", "num_turns"})
        kept |= {"lake": row["reward_model"]["ground_truth"], "step": row["global_steps"]}
        with open(os.environ["RECORD"], "a") as file:
            file.write(json.dumps(kept, default=int) + "\\n")
        return output
"""


class Lakes(Script):
    @property
    def metrics_path(self) -> Path:
        return self.directory / "rejuvenated" / "metrics.jsonl"


def played_again(lake: str, moves: list[str]) -> float:
    """gymnasium's own reward of some moves."""
    env, total = gymnasium.make("FrozenLake-v1", desc=lake.split("/"), is_slippery=False), 0.0
    env.reset(seed=0)
    for move in moves:
        total += env.step("ldru".index(move))[1]
    return total


def two_steps(
    tmp_path: Path, hidden: int, *overrides: str, variables_for: Callable[..., dict[str, str]] = importing
) -> None:
    from transformers import AutoTokenizer

    folders = (RECIPE, RECIPES / "quickstart", RECIPES / "reset_study", tmp_path)
    models = tmp_path / "models"
    env = os.environ | importing(*folders) | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", MAKE, str(models), str(hidden)], env=env, check=True, timeout=300)
    (tmp_path / "recording.py").write_text(RECORDING)
    loop = (RECIPE / "agent.yaml").read_text().replace("frozenlake_loop.FrozenLakeLoop", "recording.Recording")
    (tmp_path / "agent.yaml").write_text(loop)
    script = RECIPE / "run_frozenlake_fsdp2.sh"
    job = Lakes(tmp_path / "run", models / "sft64", models / "data", steps=2, script=script)
    job.env = {
        **variables_for(*folders), "ARM": "rejuvenated", "MODELS": str(models), "RUN_DIR": str(job.directory),
        "STEPS": "2", "ALPHA": "0.9", "TRAIN_BATCH": "4", "GROUP": "4", "VAL_N": "1",
        "RECORD": str(tmp_path / "record.jsonl"),
    }  # fmt: skip
    job.overrides = [
        f"actor_rollout_ref.rollout.agent.agent_loop_config_path={tmp_path}/agent.yaml",
        f"rejuvenation.cache_dir={tmp_path}/cache",
        "algorithm.rollout_correction.rollout_is=token",
        'trainer.logger=["console","file"]',
        *overrides,
    ]
    job.run()

    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    record = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    turns = []
    for episode in record:
        ids, mask = episode["response_ids"], episode["response_mask"]
        assert len(ids) == len(mask)
        # Stretches of the model's tokens and of the environment's, in turn; the model has the last word.
        said: list[tuple[int, str]] = []
        starts = [at for at in range(len(mask)) if at == 0 or mask[at] != mask[at - 1]]
        for start, end in zip(starts, [*starts[1:], len(mask)], strict=True):
            said.append((mask[start], tokenizer.decode(ids[start:end])))
        assert [own for own, _ in said] == [1, 0] * (len(said) // 2) + [1]
        moves = [text.removesuffix("<|im_end|>") for own, text in said if own]
        turns.append(len(moves))
        assert all(text.startswith("\n<|im_start|>user\n") for own, text in said if not own)
        assert all(text.endswith("<|im_start|>assistant\n") for own, text in said if not own)
        valid = moves if moves[-1] in {"l", "d", "r", "u"} else moves[:-1]
        assert episode["reward_score"] == played_again(episode["lake"], valid)
        assert episode["num_turns"] == 2 * len(moves)
    assert max(turns) >= 3, "several turns"

    assert {"val-core/lake_in/acc/mean@1", "val-core/lake_out/acc/mean@1"} <= job.metrics[2].keys()
    for step in (1, 2):
        dumped = [json.loads(line) for line in (job.directory / "rejuvenated" / "rollouts" / f"{step}.jsonl").open()]
        # Lakes of RL and of validation are disjoint.
        lakes = {row["gts"] for row in dumped}
        ours = [episode for episode in record if episode["step"] == step and episode["lake"] in lakes]
        text = [tokenizer.decode(episode["response_ids"], skip_special_tokens=True) for episode in ours]
        handed = sorted((e["lake"], said, e["reward_score"]) for e, said in zip(ours, text, strict=True))
        assert len(handed) == 16
        assert sorted((row["gts"], row["output"], row["score"]) for row in dumped) == handed, "what verl trains on"
        assert job.metrics[step]["num_turns/max"] == max(episode["num_turns"] for episode in ours)
        # verl's own mask, and the monitors': an environment's token in either would move the mean.
        assert plasticity(job.metrics[step])["entropy"] == pytest.approx(job.metrics[step]["actor/entropy"], rel=1e-3)
        assert job.log_prob_gap(step) < 1e-3


def test_two_steps_of_the_recipe(tmp_path: Path) -> None:
    two_steps(tmp_path, 32)


@pytest.mark.recipe_scripts
@pytest.mark.vllm
def test_two_steps_with_vllm_rollouts(tmp_path: Path) -> None:
    overrides = ("actor_rollout_ref.rollout.name=vllm", "actor_rollout_ref.rollout.max_num_seqs=16")
    # Four heads of 32: the smallest that vLLM's CPU kernels take.
    two_steps(tmp_path, 128, *overrides, variables_for=on_vllm)
