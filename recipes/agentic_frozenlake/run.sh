#!/usr/bin/env bash
# The whole pipeline on a laptop: an agent over-trained by SFT, as it is and rejuvenated, each trained by the real verl in
# gymnasium's FrozenLake.
#   bash recipes/agentic_frozenlake/run.sh [verl overrides ...]
# What the settings mean and what comes out: README.md. Task and models: lake_settings.py. RL: run_frozenlake_fsdp2.sh.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Runs to make for each seed: over, rejuvenated, moderate, base.
ARMS=${ARMS:-"over rejuvenated"}
# The settings were chosen on seed 0.
SEEDS=${SEEDS:-"2"}
STEPS=${STEPS:-25}
# Arms that run at a time: 2.5 GiB each.
JOBS=${JOBS:-2}
# Weight of the SFT checkpoint in the fusion.
ALPHA=${ALPHA:-0.5}
OUT=${OUT:-$HERE/out}
# VENV, PYTHON: ../environment.sh

# Derived from the above
# shellcheck source=/dev/null
source "$HERE/../environment.sh"
for arm in $ARMS; do
  case $arm in
    over | rejuvenated | moderate | base) ;;
    *) echo "ARMS: expected some of over, rejuvenated, moderate, base, got $arm. Fix: ARMS=\"over rejuvenated\"." >&2; exit 2 ;;
  esac
done
STARTED=$SECONDS

stage "1/4 environment (about 90 s the first time)"
use_environment verl,report,agentic
export PYTHONPATH=$HERE:$ROOT/recipes/reset_study:$ROOT/recipes/quickstart${PYTHONPATH:+:$PYTHONPATH}

stage "2/4 models and data, seeds $SEEDS (about two minutes each)"
for seed in $SEEDS; do OMP_NUM_THREADS=1 python "$HERE/make_lake.py" --seed "$seed" --out "$OUT"; done

stage "3/4 RL under verl: $ARMS, $STEPS steps each, $JOBS at a time"
export STEPS ALPHA OUT
# Another alpha, or overrides: other runs.
OTHER=$([ "$ALPHA $*" = "0.5 " ] || echo "-$(echo "$ALPHA $*" | cksum | cut -d " " -f 1)")
runs=()
for SEED in $SEEDS; do
  MODELS=$(python "$HERE/lake_settings.py" --seed "$SEED" --out "$OUT")
  RUN_DIR=$OUT/runs/$(basename "$MODELS")-steps$STEPS$OTHER
  runs+=("$RUN_DIR")
  export SEED MODELS RUN_DIR
  for arm in $ARMS; do
    # A study that was stopped goes on where it was.
    if grep -qs '"exit_code": 0' "$RUN_DIR/$arm/run.json"; then continue; fi
    wait_for_room "$JOBS"
    ARM=$arm in_background python "$ROOT/recipes/quickstart/watch.py" --arm "$arm" --steps "$STEPS" --dir "$RUN_DIR/$arm" --lines -- \
      bash "$HERE/run_frozenlake_fsdp2.sh" "$@"
  done
done
wait_for_all

stage "4/4 results"
python "$HERE/lake_summary.py" "${runs[@]}" --output "$OUT"
watched=()
for run in "${runs[@]}"; do
  for arm in $ARMS; do [ "$arm" = base ] || watched+=("$run/$arm/checkpoints"); done
done
if [ ${#watched[@]} -gt 0 ]; then rejuv report "${watched[@]}" --output "$OUT/report.html"; fi
echo "total: $((SECONDS - STARTED)) s"
