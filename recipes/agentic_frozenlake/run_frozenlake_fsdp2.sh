#!/usr/bin/env bash
# One agentic RL run under verl: GRPO with FSDP2, episodes played by frozenlake_loop.py. On a laptop's CPU:
#   ARM=rejuvenated bash recipes/agentic_frozenlake/run_frozenlake_fsdp2.sh
# On a node with GPUs the same command; only the platform, the rollout and the sizes differ (models: README.md):
#   PLATFORM=cuda ROLLOUT=vllm NGPUS=8 TRAIN_BATCH=256 ARM=rejuvenated bash recipes/agentic_frozenlake/run_frozenlake_fsdp2.sh
# It is the quickstart's command with an agent: what is below is all that several turns and an environment add.
# run.sh calls this once for each arm. Anything after the script's name goes to verl, last, so it wins.
set -xeuo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# over: SFT then RL. rejuvenated: the same checkpoint and command, with the plugin's flag. moderate, base: references.
export ARM=${ARM:-rejuvenated}
export SEED=${SEED:-0}

export OUT=${OUT:-$HERE/out}
# A directory with base, sft4, sft64 and data, from make_lake.py.
export MODELS=${MODELS:-$(ls -d "$OUT/models/seed$SEED-"* | grep -v partial | head -n 1)}
export STEPS=${STEPS:-25}

export TRAIN_BATCH=${TRAIN_BATCH:-16}
export GROUP=${GROUP:-8}
export LR=${LR:-3e-4}
# The map, the first view, and their chat markers take 34 tokens.
export MAX_PROMPT=${MAX_PROMPT:-40}
# 8 answers of two tokens, and 7 views of 15 with their chat markers: 121.
export MAX_RESPONSE=${MAX_RESPONSE:-128}
export VAL_N=${VAL_N:-4}

# Derived from the above
# The rollout's workers import the loop by name. On a cluster set this where Ray is started, on every node.
export PYTHONPATH=$HERE${PYTHONPATH:+:$PYTHONPATH}

exec bash "$HERE/../quickstart/run_nav_fsdp2.sh" \
  actor_rollout_ref.rollout.agent.agent_loop_config_path="$HERE/agent.yaml" \
  reward.custom_reward_function.path=null \
  trainer.project_name=agentic_frozenlake \
  "$@"
