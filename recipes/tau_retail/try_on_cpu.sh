#!/usr/bin/env bash
# The whole recipe on a CPU with a tiny agent that also plays the customer: tasks, conversations, a reset set measured on them,
# two steps of GRPO. It shows that everything runs, and teaches nobody to sell.
#   bash recipes/tau_retail/try_on_cpu.sh [verl overrides ...]
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${OUT:-$HERE/out/tiny}
# VENV, PYTHON: ../environment.sh; a VENV with inspect-evals in its directory `tau`
SCRIPT=${SCRIPT:-run_qwen3_8b_fsdp2.sh}

# Derived from the above
# shellcheck source=/dev/null
source "$HERE/../environment.sh"

stage "1/4 environment (about 90 s the first time)"
use_environment verl,report tau
export PYTHONPATH=$HERE:$VENV/beside/tau${PYTHONPATH:+:$PYTHONPATH}
export PLATFORM=cpu OMP_NUM_THREADS=1

stage "2/4 agent, base and tasks"
if [ ! -e "$OUT/data" ]; then
  python "$HERE/make_tiny.py" --out "$OUT" 2> "$OUT/make.log"
  python "$HERE/make_tau2.py" --out "$OUT/data"
fi

stage "3/4 gold conversations, and the neurons that they single out"
if [ ! -e "$OUT/neurons.json" ]; then
  python "$HERE/replay_gold.py" --out "$OUT/gold"
  python "$HERE/transcripts_to_sft.py" "$OUT/gold" --model "$OUT/agent" --max-tokens 8192 --out "$OUT/conversations.parquet"
  rejuv apply --base "$OUT/base" --sft "$OUT/agent" --output "$OUT/rejuvenated" \
    --reset-ratio 0.01 --calibration "$OUT/conversations.parquet" --save-reset-set "$OUT/neurons.json"
fi

stage "4/4 RL, two steps: $SCRIPT"
python "$HERE/serve_tiny.py" "$OUT/agent" --port 0 > "$OUT/customer.log" 2>&1 &
trap 'kill $! 2> /dev/null || true' EXIT
until grep -q "/v1$" "$OUT/customer.log"; do
  kill -0 $! 2> /dev/null || { cat "$OUT/customer.log" >&2; exit 1; }
  sleep 1
done
SIMULATOR_URL=$(grep -o "http://.*/v1$" "$OUT/customer.log")
export SIMULATOR_URL SIMULATOR_MODEL=tiny SFT=$OUT/agent BASE=$OUT/base DATA=$OUT/data TRANSCRIPTS=$OUT/transcripts
export RESET_SET=$OUT/neurons.json STEPS=2 TRAIN_BATCH=2 MINI_BATCH=2 GROUP=2 TURNS=3 MAX_PROMPT=2560 MAX_RESPONSE=768
export LR=1e-4 ULYSSES=1 OFFLOAD=False TP=1 CP=1 TEST_FREQ=-1 SAVE_FREQ=-1
OUT=$OUT/rl python "$ROOT/recipes/quickstart/watch.py" --arm tau2 --steps 2 --dir "$OUT/rl" --lines -- \
  bash "$HERE/$SCRIPT" trainer.val_before_train=False "$@"
echo "$(find "$TRANSCRIPTS" -name '*.json' | wc -l) conversations in $TRANSCRIPTS"
