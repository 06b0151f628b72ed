#!/usr/bin/env bash
# An over-trained SFT checkpoint is rejuvenated, then OpenRLHF trains it by GRPO with its own command.
#   SFT=/models/my-sft BASE=/models/my-base TRAIN=train.jsonl REWARD=reward.py bash recipes/openrlhf/run_grpo.sh
# Two environments: `rejuv` (REJUV) in one, OpenRLHF in the other (PYTHON), as their versions of transformers differ.
# Anything after the script's name goes to OpenRLHF, last, so it wins.
set -xeuo pipefail

# What you have
SFT=${SFT:?the over-trained SFT checkpoint, a directory or a hub name}
BASE=${BASE:?the model that it started from}
TRAIN=${TRAIN:?RL prompts, as OpenRLHF reads them: jsonl, or a hub name}
REWARD=${REWARD:?reward.py with reward_func, or the address of a reward server}
OUT=${OUT:-$PWD/out}
REJUV=${REJUV:-rejuv}
PYTHON=${PYTHON:-python}

# What you may want to change: weight of the SFT checkpoint; neurons to reset, measured on pairs of prompt and response
ALPHA=${ALPHA:-0.5}
CALIBRATION=${CALIBRATION:-}
RESET_RATIO=${RESET_RATIO:-0.01}

# The machine: one node, every GPU used by all models in turn
NGPUS=${NGPUS:-8}
ENGINES=${ENGINES:-4}
GEN_TP=${GEN_TP:-2}

# The run
EPISODES=${EPISODES:-1}
ROLLOUT_BATCH=${ROLLOUT_BATCH:-128}
TRAIN_BATCH=${TRAIN_BATCH:-1024}
GROUP=${GROUP:-8}
LR=${LR:-1e-6}
KL_COEF=${KL_COEF:-0.001}
MAX_LEN=${MAX_LEN:-5120}
MAX_RESPONSE=${MAX_RESPONSE:-4096}
INPUT_KEY=${INPUT_KEY:-prompt}
LABEL_KEY=${LABEL_KEY:-label}

# Derived from the above
START=$OUT/rejuvenated-alpha$ALPHA
RESET=()
if [ -n "$CALIBRATION" ]; then
  # Other data find other neurons.
  START=$START-reset$RESET_RATIO-$(sha256sum < "$CALIBRATION" | cut -c1-8)
  if [ -f "$START-neurons.json" ]; then
    # Measured by a run that failed later.
    RESET=(--reset-set "$START-neurons.json")
  else
    RESET=(--reset-ratio "$RESET_RATIO" --calibration "$CALIBRATION" --save-reset-set "$START-neurons.json")
  fi
fi

# What OpenRLHF leaves. It removes old checkpoints of whatever run they are: starts share no directory.
RUN=$OUT/run-$(basename "$START")

mkdir -p "$OUT"
# Where rejuvenation.json is, the checkpoint is whole. It names what it was made from.
if [ ! -f "$START/rejuvenation.json" ]; then
  "$REJUV" apply --base "$BASE" --sft "$SFT" --output "$START" --alpha "$ALPHA" "${RESET[@]}" --resume
fi
for model in "$BASE" "$SFT"; do
  if ! grep -qF "\"given\": \"$model\"" "$START/rejuvenation.json"; then
    echo "OUT: expected a start made from $model, got another in $START. Fix: another OUT" >&2
    exit 2
  fi
done

# exec: a signal to this script is one to OpenRLHF.
exec "$PYTHON" -m openrlhf.cli.train_ppo_ray \
  --actor.model_name_or_path "$START" \
  --actor.num_nodes 1 \
  --actor.num_gpus_per_node "$NGPUS" \
  --ref.num_nodes 1 \
  --ref.num_gpus_per_node "$NGPUS" \
  --vllm.num_engines "$ENGINES" \
  --vllm.tensor_parallel_size "$GEN_TP" \
  --vllm.gpu_memory_utilization 0.5 \
  --vllm.enable_sleep \
  --vllm.sync_backend nccl \
  --train.colocate_all \
  --ds.enable_sleep \
  --ds.zero_stage 3 \
  --ds.param_dtype bf16 \
  --ds.packing_samples \
  --actor.gradient_checkpointing_enable \
  --reward.remote_url "$REWARD" \
  --data.prompt_dataset "$TRAIN" \
  --data.input_key "$INPUT_KEY" \
  --data.label_key "$LABEL_KEY" \
  --data.apply_chat_template \
  --data.max_len "$MAX_LEN" \
  --rollout.max_new_tokens "$MAX_RESPONSE" \
  --rollout.batch_size "$ROLLOUT_BATCH" \
  --rollout.n_samples_per_prompt "$GROUP" \
  --train.batch_size "$TRAIN_BATCH" \
  --train.num_episodes "$EPISODES" \
  --algo.advantage.estimator group_norm \
  --algo.kl.use_loss \
  --algo.kl.estimator k3 \
  --algo.kl.init_coef "$KL_COEF" \
  --actor.adam.lr "$LR" \
  --actor.entropy_coef 0 \
  --ckpt.output_dir "$RUN/final" \
  --ckpt.path "$RUN/checkpoints" \
  --ckpt.save_steps 50 \
  --logger.tensorboard_dir "$RUN/tensorboard" \
  "$@"
