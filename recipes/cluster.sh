# Sourced by the run scripts of recipes for clusters, after their own settings. From what a script's table of variables
# says it makes three arrays of verl overrides, MACHINE, REJUVENATION and RECORDS, and START, which names where RL starts.

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
# Of checkpoints the last so many stay; null: all.
KEEP=${KEEP:-null}

# The trainer and the workers have the directory where Ray was started: what is in this one gets its whole name.
for name in SFT BASE TRAIN VAL DATA REWARD CALIBRATION RESET_SET; do
  if [[ ${!name:-} != /* ]] && [ -e "${!name:-}" ]; then printf -v "$name" %s "$PWD/${!name}"; fi
done
# A value for Hydra, to which = and commas mean something. A list is one already.
quoted() { case $1 in \[*) echo "$1" ;; *) echo "'$1'" ;; esac; }

START=$(basename "$SFT")-alpha$ALPHA
if [ -n "$RESET_SET$CALIBRATION" ]; then START+=-reset; fi
# Below it all that a run writes. Starts that are compared have different ones.
OUT=${OUT:-$PWD/out/$START}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

# Whether verl is only asked what it would do.
case " $*" in *" --cfg"* | *" -c "*) SHOW_ONLY=yes ;; *) SHOW_ONLY= ;; esac

REJUVENATION=(
  +rejuvenation=default
  rejuvenation.base_path="$(quoted "$BASE")"
  rejuvenation.mode="$MODE"
  rejuvenation.fusion.alpha="$ALPHA"
)
if [ -n "$RESET_SET" ]; then
  REJUVENATION+=(rejuvenation.reset.set_path="$(quoted "$RESET_SET")")
elif [ -n "$CALIBRATION" ]; then
  REJUVENATION+=(rejuvenation.reset.ratio="$RESET_RATIO" rejuvenation.reset.calibration="$(quoted "$CALIBRATION")")
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

RECORDS=(
  trainer.logger='["console","file","tensorboard"]'
  trainer.default_local_dir="$(quoted "$OUT/checkpoints")"
  trainer.validation_data_dir="$(quoted "$OUT/validation")"
  trainer.max_actor_ckpt_to_keep="$KEEP"
  trainer.max_critic_ckpt_to_keep="$KEEP"
  # The trainer is a process of Ray's, which gets no variables of this one where Ray was started before.
  +ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH="$(quoted "$OUT/metrics.jsonl")"
  +ray_kwargs.ray_init.runtime_env.env_vars.TENSORBOARD_DIR="$(quoted "$OUT/tensorboard")"
)
# verl begins its file anew, also where it goes on at a checkpoint.
if [ -z "$SHOW_ONLY" ] && [ -s "$OUT/metrics.jsonl" ]; then
  n=1
  while [ -e "$OUT/metrics-$n.jsonl" ]; do n=$((n + 1)); done
  mv "$OUT/metrics.jsonl" "$OUT/metrics-$n.jsonl"
fi
