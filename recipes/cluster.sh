# Sourced by the run scripts of recipes for clusters, after their own settings. From what a script's table of variables
# says it makes two arrays of verl overrides, MACHINE and REJUVENATION, and exports what verl's processes read.

PLATFORM=${PLATFORM:-cuda}
ROLLOUT=${ROLLOUT:-$([ "$PLATFORM" = cpu ] && echo transformers_cpu || echo vllm)}
NNODES=${NNODES:-1}
NGPUS=${NGPUS:-8}
GEN_TP=${GEN_TP:-1}
ALPHA=${ALPHA:-0.5}
RESET_SET=${RESET_SET:-}
CALIBRATION=${CALIBRATION:-}
RESET_RATIO=${RESET_RATIO:-0.01}
MODE=${MODE:-disk}

REJUVENATION=(
  +rejuvenation=default
  rejuvenation.base_path="$BASE"
  rejuvenation.mode="$MODE"
  rejuvenation.fusion.alpha="$ALPHA"
)
if [ -n "$RESET_SET" ]; then
  REJUVENATION+=(rejuvenation.reset.set_path="$RESET_SET")
elif [ -n "$CALIBRATION" ]; then
  REJUVENATION+=(rejuvenation.reset.ratio="$RESET_RATIO" rejuvenation.reset.calibration="$CALIBRATION")
fi

if [ "$PLATFORM" = cpu ]; then
  # One process on a laptop, to see a script run: a tiny model's sizes are the caller's to set.
  NNODES=1 NGPUS=1
  MACHINE=(+laptop=default actor_rollout_ref.rollout.name="$ROLLOUT")
  if [ "$ROLLOUT" = vllm ]; then
    # Its CPU build: memory for a tiny model's cache, in GiB, and no cores of its own.
    MACHINE+=(actor_rollout_ref.rollout.max_num_seqs=16)
    export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_CPU_OMP_THREADS_BIND=${VLLM_CPU_OMP_THREADS_BIND:-nobind}
  fi
  export VERL_PLATFORM=cpu
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
else
  MACHINE=(
    trainer.nnodes="$NNODES"
    trainer.n_gpus_per_node="$NGPUS"
    actor_rollout_ref.rollout.name="$ROLLOUT"
    actor_rollout_ref.rollout.tensor_model_parallel_size="$GEN_TP"
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
  )
fi
export VERL_FILE_LOGGER_PATH=$OUT/metrics.jsonl
export TENSORBOARD_DIR=$OUT/tensorboard
mkdir -p "$OUT"
