#!/usr/bin/env bash
# The whole recipe on a CPU with a model of 100 000 parameters: data, an SFT ladder of two depths, its diagnosis, and two
# RL steps of each run script. It shows that everything runs, and teaches nobody to add.
#   bash recipes/math_grpo/try_on_cpu.sh [run script ...]       default: GRPO, DAPO and PPO
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${OUT:-$HERE/out/tiny}
# VENV, PYTHON: ../environment.sh

# Derived from the above
if [ $# = 0 ]; then set -- run_evolm_4b_grpo.sh run_qwen3_8b_dapo.sh run_qwen3_4b_ppo.sh; fi
# shellcheck source=/dev/null
source "$HERE/../environment.sh"

stage "1/5 environment (about 90 s the first time)"
use_environment verl,report,math
export PLATFORM=cpu OMP_NUM_THREADS=1

stage "2/5 base model and data"
prepare() { python "$HERE/prepare_math.py" --instruction "" "$@" 2> "$OUT/data.log"; }
if [ ! -e "$OUT/val.parquet" ]; then
  python "$HERE/make_tiny.py" --out "$OUT" 2> "$OUT/data.log"
  prepare "$OUT/sft.jsonl" --sft --output "$OUT/sft.parquet"
  prepare "$OUT/rl.jsonl" --name sums --output "$OUT/train.parquet"
  prepare "$OUT/held_out.jsonl" --name sums --output "$OUT/val.parquet"
fi

stage "3/5 SFT ladder: log in $OUT/ladder.log"
BASE=$OUT/base TRAIN=$OUT/sft.parquet OUT=$OUT/ladder RUNGS="2 8" BATCH=16 LR=1e-3 MAX_LENGTH=64 \
  bash "$HERE/run_sft_ladder_fsdp2.sh" > "$OUT/ladder.log" 2>&1 || { tail -n 40 "$OUT/ladder.log" >&2; exit 1; }
(cd "$OUT/ladder" && ls -d epochs_*)

stage "4/5 diagnosis"
if [ ! -e "$OUT/diagnosis" ]; then
  # From there: its table has the names as they are given, and cuts long ones.
  (cd "$OUT" && rejuv diagnose --base base --sft ladder/epochs_2 --sft ladder/epochs_8 --calibration sft.parquet --output diagnosis)
fi

stage "5/5 RL, two steps each: $*"
export SFT=$OUT/ladder/epochs_8 BASE=$OUT/base TRAIN=$OUT/train.parquet VAL=$OUT/val.parquet
export STEPS=2 TRAIN_BATCH=8 MINI_BATCH=4 GROUP=4 LR=1e-3 MAX_PROMPT=32 MAX_RESPONSE=24 VAL_N=2 TEST_FREQ=2 SAVE_FREQ=2
for script in "$@"; do
  name=$(basename "${script#run_}" .sh)
  OUT=$OUT/$name python "$ROOT/recipes/quickstart/watch.py" --arm "${name##*_}" --steps 2 --dir "$OUT/$name" --lines -- \
    bash "$HERE/$script"
done
