#!/usr/bin/env bash
# GRPO on a mixture of experts of 30B parameters, over-trained by SFT, under verl's Megatron engine with vLLM rollouts;
# rejuvenated in the workers, so that no rejuvenated checkpoint is ever written and no disk has to be shared.
#   SFT=/models/my-sft BASE=/models/Qwen3-30B-A3B-Base TRAIN=train.parquet VAL=val.parquet \
#     bash recipes/megatron_grpo/run_qwen3_30b_a3b_megatron.sh
# SFT and BASE must be at the same paths on every node. Anything after the script's name goes to verl, last, so it wins:
#   bash ... --cfg job          prints the whole configuration and ends
set -xeuo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# What you have
SFT=${SFT:?the over-trained SFT checkpoint, a directory}
BASE=${BASE:?the model that it started from, a directory}
TRAIN=${TRAIN:?RL prompts, parquet}
VAL=${VAL:?validation prompts, parquet}

# What you may want to change: OUT; ALPHA, weight of the SFT checkpoint; neurons to reset, measured before (RESET_SET, of
# rejuv apply --save-reset-set) or found by the workers (CALIBRATION, a file of prompts and responses; RESET_RATIO);
# defaults are in ../cluster.sh. MODE=disk writes one checkpoint first.
MODE=${MODE:-worker}

# The machine: 4 nodes of 8 GPUs with 80 GB
NNODES=${NNODES:-4}
NGPUS=${NGPUS:-8}
TP=${TP:-4}
PP=${PP:-2}
CP=${CP:-1}
EP=${EP:-8}
ETP=${ETP:-1}
GEN_TP=${GEN_TP:-4}
OFFLOAD=${OFFLOAD:-True}
# Of each layer only the input is kept, the rest computed again; null: all is kept.
RECOMPUTE=${RECOMPUTE:-full}

# The run
STEPS=${STEPS:-300}
TRAIN_BATCH=${TRAIN_BATCH:-256}
MINI_BATCH=${MINI_BATCH:-64}
GROUP=${GROUP:-8}
LR=${LR:-1e-6}
KL_COEF=${KL_COEF:-0.001}
MAX_PROMPT=${MAX_PROMPT:-1024}
MAX_RESPONSE=${MAX_RESPONSE:-4096}
TEST_FREQ=${TEST_FREQ:-20}
SAVE_FREQ=${SAVE_FREQ:-50}

# Derived from the above
source "$HERE/../cluster.sh"
TOKENS=$((MAX_PROMPT + MAX_RESPONSE))
# Of one GPU: verl multiplies it by CP, over which sequences are split.
BUDGET=$(((2 * TOKENS + CP - 1) / CP))

# exec: a signal to this script is one to verl.
exec python -m verl.trainer.main_ppo \
  model_engine=megatron \
  algorithm.adv_estimator=grpo \
  algorithm.use_kl_in_reward=False \
  data.train_files="$(quoted "$TRAIN")" \
  data.val_files="$(quoted "$VAL")" \
  data.train_batch_size="$TRAIN_BATCH" \
  data.max_prompt_length="$MAX_PROMPT" \
  data.max_response_length="$MAX_RESPONSE" \
  data.filter_overlong_prompts=True \
  actor_rollout_ref.model.path="$(quoted "$SFT")" \
  actor_rollout_ref.model.use_remove_padding=True \
  actor_rollout_ref.actor.optim.lr="$LR" \
  actor_rollout_ref.actor.ppo_mini_batch_size="$MINI_BATCH" \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu="$BUDGET" \
  actor_rollout_ref.actor.use_kl_loss=True \
  actor_rollout_ref.actor.kl_loss_coef="$KL_COEF" \
  actor_rollout_ref.actor.entropy_coeff=0.0 \
  actor_rollout_ref.actor.megatron.tensor_model_parallel_size="$TP" \
  actor_rollout_ref.actor.megatron.pipeline_model_parallel_size="$PP" \
  actor_rollout_ref.actor.megatron.context_parallel_size="$CP" \
  actor_rollout_ref.actor.megatron.expert_model_parallel_size="$EP" \
  actor_rollout_ref.actor.megatron.expert_tensor_parallel_size="$ETP" \
  actor_rollout_ref.actor.megatron.override_transformer_config.recompute_granularity="$RECOMPUTE" \
  actor_rollout_ref.actor.megatron.override_transformer_config.recompute_method=uniform \
  actor_rollout_ref.actor.megatron.override_transformer_config.recompute_num_layers=1 \
  actor_rollout_ref.actor.megatron.param_offload="$OFFLOAD" \
  actor_rollout_ref.actor.megatron.optimizer_offload="$OFFLOAD" \
  actor_rollout_ref.ref.megatron.tensor_model_parallel_size="$TP" \
  actor_rollout_ref.ref.megatron.pipeline_model_parallel_size="$PP" \
  actor_rollout_ref.ref.megatron.context_parallel_size="$CP" \
  actor_rollout_ref.ref.megatron.expert_model_parallel_size="$EP" \
  actor_rollout_ref.ref.megatron.expert_tensor_parallel_size="$ETP" \
  actor_rollout_ref.ref.megatron.param_offload="$OFFLOAD" \
  actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True \
  actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=$((2 * BUDGET)) \
  actor_rollout_ref.rollout.n="$GROUP" \
  actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
  actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=$((2 * BUDGET)) \
  trainer.project_name=megatron_grpo \
  trainer.experiment_name="$(quoted "$START-$MODE")" \
  trainer.val_before_train=True \
  trainer.total_training_steps="$STEPS" \
  trainer.total_epochs=1000 \
  trainer.test_freq="$TEST_FREQ" \
  trainer.save_freq="$SAVE_FREQ" \
  "${RECORDS[@]}" \
  "${MACHINE[@]}" \
  "${REJUVENATION[@]}" \
  "$@"
