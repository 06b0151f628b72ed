#!/usr/bin/env bash
# From which depth of SFT does RL still learn, what predicts it, and is a measured alpha as good as the best of a grid?
#   bash recipes/sft_ladder/run.sh                                     # everything, one seed after the other
#   SEEDS="2 3" ARMS=ladder PARTS="rl results" bash recipes/sft_ladder/run.sh
#   RL=verl SEEDS=2 ARMS="sft4 sft64 alpha_0.5" PARTS="rl results" bash recipes/sft_ladder/run.sh
# Half a minute for each start and seed on one core (verl: six and more), two minutes for the models of each seed, and
# 19 starts. What was stopped goes on where it was.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The quickstart's settings were chosen on seeds 0 and 1: they have no part in this.
SEEDS=${SEEDS:-"2 3 4 5 6"}
# Groups (ladder, grid, controls), names of starts (depths.py), or alpha_0.37: a fusion off the grid.
ARMS=${ARMS:-"ladder grid controls"}
# rl: from each start; diagnose: every rung; tune: alpha for the rung of 64 epochs, and RL from it; results: tables.
PARTS=${PARTS:-"rl diagnose tune results"}
# plain: GRPO in plain PyTorch. verl: the same by the real verl job.
RL=${RL:-plain}
STEPS=${STEPS:-40}
# Size of the SFT set.
DEMONSTRATIONS=${DEMONSTRATIONS:-64}
# Seeds at a time: one core each, with RL=verl one core and 2.5 GiB.
JOBS=${JOBS:-1}
OUT=${OUT:-$HERE/out}
# VENV, PYTHON: ../environment.sh

# Derived from the above
case $RL in
  plain | verl) ;;
  *) echo "RL: expected plain or verl, got $RL. Fix: RL=plain." >&2; exit 2 ;;
esac
# shellcheck source=/dev/null
source "$HERE/../environment.sh"
QUICKSTART=$ROOT/recipes/quickstart
RESULTS=$OUT/results-$RL-steps$STEPS-sft$DEMONSTRATIONS
use_environment "$([ "$RL" = plain ] && echo report || echo verl,report)"
# One thread: a second does not make models this small faster, and the last bits depend on it.
export PYTHONPATH=$HERE:$ROOT/recipes/reset_study:$QUICKSTART OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

ladder() {
  python "$HERE/ladder.py" --seed "$1" --out "$OUT" --rows "$RESULTS/rows" --rl "$RL" --steps "$STEPS" \
    --demonstrations "$DEMONSTRATIONS" --arms "${@:2}"
}

# As RL has them.
task_of() { echo "--prompts $1/data/train.parquet --reward $QUICKSTART/reward.py:compute_score --max-response 16"; }

diagnose() {
  local models=$2 to=$RESULTS/diagnosis/seed$1 rungs=()
  if [ -e "$to.json" ]; then return; fi
  for path in $(ls -d "$models"/sft* | sort -V); do rungs+=(--sft "$path"); done
  rm -rf "$to"
  # Right answers to the held-out problems: SFT's kind of data, which nobody trained on.
  # shellcheck disable=SC2046
  rejuv diagnose --base "$models/base" "${rungs[@]}" --calibration "$models/data/probe.jsonl" $(task_of "$models") \
    --output "$to"
  python "$HERE/keep.py" "$to/metrics.json" > "$to.json.partial"
  mv "$to.json.partial" "$to.json"
}

tune() {
  local models=$2 to=$RESULTS/tuning/seed$1
  if [ ! -e "$to.json" ]; then
    # shellcheck disable=SC2046
    rejuv tune --base "$models/base" --sft "$models/sft64" $(task_of "$models") --output "$to"
    python "$HERE/keep.py" "$to/tuning.json" > "$to.json.partial"
    mv "$to.json.partial" "$to.json"
  fi
  ladder "$1" "$(python -c 'import json, sys; print("alpha_%g" % json.load(open(sys.argv[1]))["choice"]["alpha"])' "$to.json")"
}

seed() {
  local models
  # shellcheck disable=SC2086
  ladder "$1" $([[ " $PARTS " != *" rl "* ]] || echo $ARMS)
  models=$(python "$HERE/depths.py" --seed "$1" --out "$OUT" --demonstrations "$DEMONSTRATIONS")
  mkdir -p "$RESULTS/diagnosis" "$RESULTS/tuning"
  if [[ " $PARTS " == *" diagnose "* ]]; then diagnose "$1" "$models"; fi
  if [[ " $PARTS " == *" tune "* ]]; then tune "$1" "$models"; fi
}

for number in $SEEDS; do
  wait_for_room "$JOBS"
  in_background seed "$number"
done
wait_for_all
if [[ " $PARTS " == *" results "* ]]; then
  python "$HERE/outcome.py" "$RESULTS" --output "$RESULTS"
fi
