#!/usr/bin/env bash
# The paper's SFT ladder with verl's own SFT trainer: one run with a constant learning rate and one order of the data, of
# which a checkpoint is kept after 0.5, 1, 2, 4, 8, 16 and 32 epochs. Each rung goes on where the last one ended.
# (verl, resumed at the end of an epoch, goes on with the order of the next but one: every row is still seen once an epoch.)
#   BASE=/models/my-base TRAIN=sft.parquet OUT=ladder bash recipes/math_grpo/run_sft_ladder_fsdp2.sh
# Makes $OUT/epochs_<N>, a Hugging Face directory each. Several nodes: the same command on each, OUT on a disk that all
# see. Anything after the script's name goes to verl, last, so it wins; `--cfg job` shows the first rung's configuration.
set -xeuo pipefail

BASE=${BASE:?the model to start from, a directory}
TRAIN=${TRAIN:?rows with messages, parquet}
OUT=${OUT:-$PWD/ladder}
# In ascending order.
RUNGS=${RUNGS:-0.5 1 2 4 8 16 32}
BATCH=${BATCH:-16}
LR=${LR:-3e-6}
MAX_LENGTH=${MAX_LENGTH:-4096}
# Steps between saves within a rung, where a run that was stopped goes on; -1: at its end alone.
SAVE_FREQ=${SAVE_FREQ:--1}
# True where the chat template adds something to the last turn alone, as Qwen3's does (an empty thought).
IGNORE_MISMATCH=${IGNORE_MISMATCH:-False}
NGPUS=${NGPUS:-8}
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
MASTER=${MASTER:-127.0.0.1:29500}
PLATFORM=${PLATFORM:-cuda}
# GPUs that a sequence is split over, and tokens of a micro-batch on each: verl multiplies the second by the first.
ULYSSES=${ULYSSES:-1}
TOKENS_PER_GPU=${TOKENS_PER_GPU:-}

# Derived from the above
if [ -z "$TOKENS_PER_GPU" ]; then
  AT_ONCE=$((MAX_LENGTH > 16384 ? MAX_LENGTH : 16384))
  TOKENS_PER_GPU=$(((AT_ONCE + ULYSSES - 1) / ULYSSES))
fi
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
ROWS=$(python -c 'import sys, pyarrow.parquet as p; print(p.read_metadata(sys.argv[1]).num_rows)' "$TRAIN")
EPOCH=$((ROWS / BATCH))
if [ "$EPOCH" = 0 ]; then
  echo "BATCH: expected at most the $ROWS rows of $TRAIN, got $BATCH. Fix: a smaller BATCH." >&2
  exit 2
fi
MACHINE=()
if [ "$PLATFORM" = cpu ]; then
  NGPUS=1
  MACHINE=(
    trainer.device=cpu
    model.use_remove_padding=False
    +model.override_config.attn_implementation=sdpa
    engine.use_torch_compile=False
    data.num_workers=0
  )
  export VERL_PLATFORM=cpu OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi

REPLICAS=$((NNODES * NGPUS > ULYSSES ? NNODES * NGPUS / ULYSSES : 1))
if [ $((BATCH % REPLICAS)) != 0 ]; then
  # verl would leave out the rest, and an epoch would be a shorter one.
  echo "BATCH: expected a multiple of $REPLICAS, NNODES x NGPUS / ULYSSES, got $BATCH. Fix: BATCH=$((BATCH / REPLICAS * REPLICAS + REPLICAS))." >&2
  exit 2
fi
# Whether verl is only asked what it would do.
case " $* " in *" --cfg"* | *" -c "*) SHOW_ONLY=yes ;; *) SHOW_ONLY= ;; esac

for rung in $RUNGS; do
  STEP=$(python -c 'import sys; print(max(1, round(float(sys.argv[1]) * int(sys.argv[2]))))' "$rung" "$EPOCH")
  WEIGHTS=run/global_step_$STEP/huggingface
  # Resumed at its last step verl would take one more.
  REACHED=$(cat "$OUT/run/latest_checkpointed_iteration.txt" 2> /dev/null || echo 0)
  if [ "$REACHED" -lt "$STEP" ] || [ -n "$SHOW_ONLY" ]; then
    torchrun --nnodes "$NNODES" --node-rank "$NODE_RANK" --master-addr "${MASTER%:*}" --master-port "${MASTER##*:}" \
      --nproc-per-node "$NGPUS" -m verl.trainer.sft_trainer \
      "${MACHINE[@]}" \
      data.train_files="'$TRAIN'" \
      data.train_batch_size="$BATCH" \
      data.max_length="$MAX_LENGTH" \
      data.max_token_len_per_gpu="$TOKENS_PER_GPU" \
      data.ignore_input_ids_mismatch="$IGNORE_MISMATCH" \
      model.path="'$BASE'" \
      engine.strategy=fsdp2 \
      engine.ulysses_sequence_parallel_size="$ULYSSES" \
      optim.lr="$LR" \
      optim.lr_scheduler_type=constant \
      optim.lr_warmup_steps_ratio=0.0 \
      'checkpoint.save_contents=[model,optimizer,extra,hf_model]' \
      'checkpoint.load_contents=[model,optimizer,extra]' \
      trainer.project_name=sft_ladder \
      trainer.experiment_name="lr$LR" \
      trainer.logger='["console"]' \
      trainer.nnodes="$NNODES" \
      trainer.n_gpus_per_node="$NGPUS" \
      trainer.total_epochs=1000 \
      trainer.total_training_steps="$STEP" \
      trainer.save_freq="$SAVE_FREQ" \
      trainer.test_freq=-1 \
      trainer.resume_mode=auto \
      trainer.default_local_dir="'$OUT/run'" \
      "$@"
  fi
  if [ -n "$SHOW_ONLY" ]; then exit; fi
  if [ ! -d "$OUT/$WEIGHTS" ]; then
    echo "RUNGS: expected $rung epochs in $OUT/$WEIGHTS, got nothing there. Fix: RUNGS in ascending order, or a new OUT; with several nodes OUT on a disk that all see." >&2
    exit 2
  fi
  if [ "$NODE_RANK" = 0 ]; then ln -sfn "$WEIGHTS" "$OUT/epochs_$rung"; fi
done
