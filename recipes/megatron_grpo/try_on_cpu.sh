#!/usr/bin/env bash
# Two steps of the recipe's script on a CPU: verl's own Megatron engine, real megatron-core and bridge, a tiny mixture of
# experts, rejuvenated in the worker. What a CPU lacks, CUDA and Transformer Engine's layers, has the stand-ins that this
# repository's tests have (tests/megatron_cpu).
#   bash recipes/megatron_grpo/try_on_cpu.sh [verl overrides ...]
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${OUT:-$HERE/out/tiny}
# VENV, PYTHON: ../environment.sh; a VENV with Megatron in its directory `megatron`

# Derived from the above
# shellcheck source=/dev/null
source "$HERE/../environment.sh"

stage "1/3 environment (about two minutes the first time)"
use_environment verl,report megatron
export PYTHONPATH=$ROOT/tests:$VENV/beside/megatron${PYTHONPATH:+:$PYTHONPATH}
export PLATFORM=cpu OMP_NUM_THREADS=1

stage "2/3 base, SFT checkpoint and data"
if [ ! -e "$OUT/data" ]; then
  python - "$OUT" 2> "$OUT/make.log" << 'END'
import sys
from pathlib import Path

import tiny
from megatron_cpu import models

out = Path(sys.argv[1])
for seed, name in enumerate(("base", "sft")):
    print(models.save(out / name, "qwen3_moe", seed=seed))
tiny.save_data(out / "data")
END
fi

stage "3/3 RL, two steps"
export SFT=$OUT/sft BASE=$OUT/base TRAIN=$OUT/data/train.parquet VAL=$OUT/data/val.parquet
export TP=1 PP=1 EP=1 OFFLOAD=False STEPS=2 TRAIN_BATCH=4 MINI_BATCH=4 GROUP=4 MAX_PROMPT=48 MAX_RESPONSE=8 LR=1e-3
# For verl alone: what it imports in each of the job's processes.
OUT=$OUT/rl VERL_USE_EXTERNAL_MODULES=megatron_cpu.in_jobs \
  python "$ROOT/recipes/quickstart/watch.py" --arm "${MODE:-worker}" --steps 2 --dir "$OUT/rl" --lines -- \
  bash "$HERE/run_qwen3_30b_a3b_megatron.sh" reward.custom_reward_function.path="$OUT/data/reward.py" \
  trainer.val_before_train=False trainer.save_freq=-1 "$@"
