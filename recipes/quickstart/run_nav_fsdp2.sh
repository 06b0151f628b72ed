#!/usr/bin/env bash
# One RL run of the quickstart under verl: GRPO with FSDP2. On a laptop's CPU:
#   ARM=rejuvenated bash recipes/quickstart/run_nav_fsdp2.sh
# On a node with GPUs the same command; only the platform, the rollout and the sizes differ:
#   PLATFORM=cuda ROLLOUT=vllm NGPUS=8 TRAIN_BATCH=256 ARM=rejuvenated bash recipes/quickstart/run_nav_fsdp2.sh
# run.sh calls this once for each arm. Anything after the script's name goes to verl, last, so it wins.
set -xeuo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# over: SFT then RL. rejuvenated: the same checkpoint and command, with the plugin's flag. reset: with the neuron reset
# on top. moderate, base: references. With START, a checkpoint to train as it is, ARM is only the run's name.
ARM=${ARM:-rejuvenated}
START=${START:-}
SEED=${SEED:-0}
# Weight of the SFT checkpoint in the fusion; share of each module's neurons that the reset takes at each position.
ALPHA=${ALPHA:-0.5}
RESET_RATIO=${RESET_RATIO:-0.01}

OUT=${OUT:-$HERE/out}
# A directory with base, sft4, sft64 and data, from make_models.py and make_data.py.
MODELS=${MODELS:-$(ls -d "$OUT/models/seed$SEED-"* | grep -v partial | head -n 1)}
STEPS=${STEPS:-40}
RUN_DIR=${RUN_DIR:-$OUT/runs/$(basename "$MODELS")-steps$STEPS}

TRAIN_BATCH=${TRAIN_BATCH:-32}
GROUP=${GROUP:-8}
LR=${LR:-3e-4}
MAX_PROMPT=${MAX_PROMPT:-32}
MAX_RESPONSE=${MAX_RESPONSE:-16}
VAL_N=${VAL_N:-8}

PLATFORM=${PLATFORM:-cpu}
ROLLOUT=${ROLLOUT:-vllm}
NGPUS=${NGPUS:-1}
THREADS=${THREADS:-1}

# Derived from the above
KIND=$ARM
if [ -n "$START" ]; then KIND=given; fi
case $KIND in
  over | rejuvenated | reset) START=$MODELS/sft64 ;;
  moderate) START=$MODELS/sft4 ;;
  base) START=$MODELS/base ;;
  given) ;;
  *) echo "ARM: expected over, rejuvenated, reset, moderate or base, got $ARM. Fix: START=CHECKPOINT." >&2; exit 2 ;;
esac
# The plugin's monitors watch every arm: with alpha 1 the checkpoint stays what it is, bit for bit.
case $KIND in
  over | moderate | given) ALPHA=1 ;;
esac
REJUVENATION=(
  +rejuvenation=default
  rejuvenation.base_path="$MODELS/base"
  rejuvenation.fusion.alpha="$ALPHA"
  rejuvenation.monitors.probe_set.data="$MODELS/data/probe.jsonl"
)
# Whoever starts at the base has nothing to be brought back to it.
if [ "$START" -ef "$MODELS/base" ]; then REJUVENATION=(); fi
# Without calibration data the plugin samples answers of the SFT checkpoint to prompts of data.train_files.
if [ "$KIND" = reset ]; then REJUVENATION+=(rejuvenation.reset.ratio="$RESET_RATIO"); fi
if [ "$PLATFORM" = cpu ]; then
  MACHINE=(
    +laptop=default
    trainer.n_gpus_per_node=1
  )
  export VERL_PLATFORM=cpu
else
  MACHINE=(
    actor_rollout_ref.rollout.name="$ROLLOUT"
    actor_rollout_ref.rollout.gpu_memory_utilization=0.5
    actor_rollout_ref.rollout.tensor_model_parallel_size=1
    trainer.n_gpus_per_node="$NGPUS"
  )
fi
export OMP_NUM_THREADS=$THREADS
export HF_HUB_OFFLINE=1
export RAY_USAGE_STATS_ENABLED=0
export RAY_DEDUP_LOGS=0
export PYTHONUNBUFFERED=1
export TQ_LOGGING_LEVEL=ERROR
export VERL_FILE_LOGGER_PATH=$RUN_DIR/$ARM/metrics.jsonl
export TENSORBOARD_DIR=$RUN_DIR/tensorboard/$ARM
mkdir -p "$RUN_DIR/$ARM"

# exec: a signal to this script is one to verl.
exec python -m verl.trainer.main_ppo \
  "${MACHINE[@]}" \
  algorithm.adv_estimator=grpo \
  algorithm.use_kl_in_reward=False \
  data.train_files="$MODELS/data/train.parquet" \
  data.val_files="['$MODELS/data/val_in.parquet','$MODELS/data/val_out.parquet']" \
  data.train_batch_size="$TRAIN_BATCH" \
  data.max_prompt_length="$MAX_PROMPT" \
  data.max_response_length="$MAX_RESPONSE" \
  data.seed="$SEED" \
  actor_rollout_ref.model.path="$START" \
  actor_rollout_ref.actor.strategy=fsdp2 \
  actor_rollout_ref.actor.optim.lr="$LR" \
  actor_rollout_ref.actor.optim.weight_decay=0.0 \
  actor_rollout_ref.actor.ppo_mini_batch_size="$TRAIN_BATCH" \
  actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=$((TRAIN_BATCH * GROUP / NGPUS)) \
  actor_rollout_ref.actor.use_kl_loss=False \
  actor_rollout_ref.actor.entropy_coeff=0.0 \
  actor_rollout_ref.rollout.n="$GROUP" \
  actor_rollout_ref.rollout.temperature=1.0 \
  actor_rollout_ref.rollout.max_model_len=$((MAX_PROMPT + MAX_RESPONSE)) \
  actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=$((TRAIN_BATCH * GROUP / NGPUS)) \
  actor_rollout_ref.rollout.val_kwargs.n="$VAL_N" \
  actor_rollout_ref.rollout.val_kwargs.do_sample=True \
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0 \
  actor_rollout_ref.rollout.val_kwargs.top_p=1.0 \
  reward.custom_reward_function.path="$HERE/reward.py" \
  trainer.project_name=quickstart \
  trainer.experiment_name="$ARM" \
  trainer.logger='["console","file","tensorboard"]' \
  trainer.val_before_train=True \
  trainer.total_training_steps="$STEPS" \
  trainer.total_epochs=1000 \
  trainer.test_freq="$STEPS" \
  trainer.save_freq=-1 \
  trainer.resume_mode=disable \
  trainer.default_local_dir="$RUN_DIR/$ARM/checkpoints" \
  trainer.rollout_data_dir="$RUN_DIR/$ARM/rollouts" \
  trainer.validation_data_dir="$RUN_DIR/$ARM/validation" \
  "${REJUVENATION[@]}" \
  "$@"
