#!/usr/bin/env bash
# Multi-turn GRPO on tau2's retail domain, from an over-trained SFT checkpoint that is rejuvenated first. The scripts
# run_*_fsdp2.sh and run_*_megatron.sh set the engine and call this one; README.md has the variables.
# Anything after the script's name goes to verl, last, so it wins; `--cfg job` prints the configuration and starts nothing.
set -xeuo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# What you have: two checkpoints, make_tau2.py's files, and an endpoint that plays the customer.
SFT=${SFT:?the over-trained SFT checkpoint, a directory}
BASE=${BASE:?the model that it started from, a directory}
DATA=${DATA:?the directory that make_tau2.py wrote}
SIMULATOR_URL=${SIMULATOR_URL:?an endpoint that speaks chat completions of OpenAI, such as http://host:8000/v1}
SIMULATOR_MODEL=${SIMULATOR_MODEL:-Qwen/Qwen3-4B-Instruct-2507}
SIMULATOR_SEED=${SIMULATOR_SEED:-0}
SIMULATOR_TEMPERATURE=${SIMULATOR_TEMPERATURE:-0.0}
# OUT, rejuvenation, the cluster: defaults are in ../cluster.sh.

# The conversations
TURNS=${TURNS:-30}
TOOL_FORMAT=${TOOL_FORMAT:-hermes}
TRANSCRIPTS=${TRANSCRIPTS:-null}

# The run; the paper saves and evaluates every 20 of 200 rollouts.
STEPS=${STEPS:-200}
TRAIN_BATCH=${TRAIN_BATCH:-32}
MINI_BATCH=${MINI_BATCH:-32}
GROUP=${GROUP:-8}
LR=${LR:-1e-6}
KL_COEF=${KL_COEF:-0.001}
MAX_PROMPT=${MAX_PROMPT:-8192}
MAX_RESPONSE=${MAX_RESPONSE:-16384}
# Conversations about each test task, at temperature 1.
VAL_N=${VAL_N:-4}
TEST_FREQ=${TEST_FREQ:-20}
SAVE_FREQ=${SAVE_FREQ:-20}
SEED=${SEED:-1}

# Derived from the above
source "$HERE/../cluster.sh"
TOKENS=$((MAX_PROMPT + MAX_RESPONSE))
# SPLIT, of the engine's script: over so many GPUs a sequence is split. verl multiplies a GPU's budget by it.
SPLIT=${SPLIT:-1}
BUDGET=$(((TOKENS + SPLIT - 1) / SPLIT))
case $TRANSCRIPTS in null | /*) ;; *) TRANSCRIPTS=$PWD/$TRANSCRIPTS ;; esac
# Rollout workers on every node import the loop by name and read these.
ENVIRONMENT=()
for name in TURNS TRANSCRIPTS SIMULATOR_URL SIMULATOR_MODEL SIMULATOR_SEED SIMULATOR_TEMPERATURE; do
  ENVIRONMENT+=("+ray_kwargs.ray_init.runtime_env.env_vars.$name=$(quoted "${!name}")")
done
export PYTHONPATH=$HERE${PYTHONPATH:+:$PYTHONPATH}
ENVIRONMENT+=("+ray_kwargs.ray_init.runtime_env.env_vars.PYTHONPATH=$(quoted "$PYTHONPATH")")
# A customer that is not there would else be noticed when the GPUs are taken.
export SIMULATOR_URL SIMULATOR_MODEL SIMULATOR_SEED SIMULATOR_TEMPERATURE
if [ -z "$SHOW_ONLY" ]; then python "$HERE/tau2_simulator.py"; fi

# exec: a signal to this script is one to verl.
exec python -m verl.trainer.main_ppo \
  "${MACHINE[@]}" \
  "${ENVIRONMENT[@]}" \
  algorithm.adv_estimator=grpo \
  algorithm.use_kl_in_reward=False \
  data.train_files="$(quoted "$DATA/train.parquet")" \
  data.val_files="$(quoted "$DATA/test.parquet")" \
  data.train_batch_size="$TRAIN_BATCH" \
  data.max_prompt_length="$MAX_PROMPT" \
  data.max_response_length="$MAX_RESPONSE" \
  data.return_raw_chat=True \
  data.seed="$SEED" \
  actor_rollout_ref.model.path="$(quoted "$SFT")" \
  actor_rollout_ref.actor.optim.lr="$LR" \
  actor_rollout_ref.actor.ppo_mini_batch_size="$MINI_BATCH" \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu="$BUDGET" \
  actor_rollout_ref.actor.use_kl_loss=True \
  actor_rollout_ref.actor.kl_loss_coef="$KL_COEF" \
  actor_rollout_ref.actor.entropy_coeff=0.0 \
  actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True \
  actor_rollout_ref.ref.log_prob_max_token_len_per_gpu="$BUDGET" \
  actor_rollout_ref.rollout.n="$GROUP" \
  actor_rollout_ref.rollout.temperature=1.0 \
  actor_rollout_ref.rollout.max_model_len="$TOKENS" \
  actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
  actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu="$BUDGET" \
  actor_rollout_ref.rollout.val_kwargs.n="$VAL_N" \
  actor_rollout_ref.rollout.val_kwargs.do_sample=True \
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0 \
  actor_rollout_ref.rollout.multi_turn.enable=True \
  actor_rollout_ref.rollout.multi_turn.format="$TOOL_FORMAT" \
  actor_rollout_ref.rollout.agent.agent_loop_config_path="$(quoted "$HERE/agent.yaml")" \
  trainer.project_name=tau_retail \
  trainer.experiment_name="$(quoted "$START-simulator-seed$SIMULATOR_SEED-temperature$SIMULATOR_TEMPERATURE")" \
  trainer.val_before_train=True \
  trainer.total_training_steps="$STEPS" \
  trainer.total_epochs=1000 \
  trainer.test_freq="$TEST_FREQ" \
  trainer.save_freq="$SAVE_FREQ" \
  "${RECORDS[@]}" \
  "${REJUVENATION[@]}" \
  "$@"
