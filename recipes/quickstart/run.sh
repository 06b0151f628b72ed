#!/usr/bin/env bash
# The whole pipeline on a laptop, under 20 minutes on two cores: an over-trained SFT checkpoint that stalls in RL, and
# the same checkpoint rejuvenated, both trained by the real verl.
#   bash recipes/quickstart/run.sh [verl overrides ...]
# What the settings mean and what comes out: README.md. Task and model settings: settings.py. RL: run_nav_fsdp2.sh.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Runs to make, in this order: over, rejuvenated, reset, moderate, base. Alias: fusion = rejuvenated.
ARMS=${ARMS:-"over rejuvenated"}
SEED=${SEED:-0}
STEPS=${STEPS:-40}
# Arms that run at a time. One waits much of the time: two take as much longer as they share, and 2.5 GiB each.
JOBS=${JOBS:-2}
# Weight of the SFT checkpoint in the fusion.
ALPHA=${ALPHA:-0.5}
OUT=${OUT:-$HERE/out}
# VENV, PYTHON: ../environment.sh

# Derived from the above
# shellcheck source=/dev/null
source "$HERE/../environment.sh"
# One arm per line, aliases resolved, duplicates dropped.
ARMS=$(tr ' ,' '\n\n' <<< "$ARMS" | sed '/^$/d; s/^fusion$/rejuvenated/' | awk '!seen[$0]++')
for arm in $ARMS; do
  case $arm in
    over | rejuvenated | reset | moderate | base) ;;
    *) echo "ARMS: expected some of over, rejuvenated, reset, moderate, base, got $arm. Fix: ARMS=\"over rejuvenated\"." >&2; exit 2 ;;
  esac
done
STARTED=$SECONDS

stage "1/4 environment (about 90 s the first time)"
use_environment verl,report
python -c 'import sys; print("python", sys.version.split()[0], "in", sys.prefix)'
INSTALL_S=$((SECONDS - STARTED))

stage "2/4 models and data, seed $SEED (about 130 s the first time)"
python "$HERE/make_models.py" --seed "$SEED" --out "$OUT"
python "$HERE/make_data.py" --seed "$SEED" --out "$OUT"
MODELS=$(python "$HERE/settings.py" --seed "$SEED" --out "$OUT")
python "$HERE/evaluate.py" "$MODELS"/base "$MODELS"/sft*
MODELS_S=$((SECONDS - STARTED - INSTALL_S))

RUN_DIR=${RUN_DIR:-$OUT/runs/$(basename "$MODELS")-steps$STEPS}
export SEED STEPS ALPHA OUT MODELS RUN_DIR
stage "3/4 RL under verl: $(echo $ARMS), $STEPS steps each, $JOBS at a time (6 to 10 minutes)"
for arm in $ARMS; do
  wait_for_room "$JOBS"
  ARM=$arm in_background python "$HERE/watch.py" --arm "$arm" --steps "$STEPS" --dir "$RUN_DIR/$arm" $([ "$JOBS" = 1 ] || echo --lines) -- \
    bash "$HERE/run_nav_fsdp2.sh" "$@"
done
wait_for_all

stage "4/4 results"
python "$HERE/summarise.py" "$RUN_DIR" --install-seconds "$INSTALL_S" --models-seconds "$MODELS_S"
runs=()
for arm in $ARMS; do [ "$arm" = base ] || runs+=("$RUN_DIR/$arm/checkpoints"); done
if [ ${#runs[@]} -gt 0 ]; then rejuv report "${runs[@]}" --output "$RUN_DIR/report.html"; fi
echo "total: $((SECONDS - STARTED)) s"
