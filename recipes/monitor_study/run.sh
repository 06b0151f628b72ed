#!/usr/bin/env bash
# Do the alarms tell an over-trained start of RL from a rejuvenated one? The plugin's own monitors under plain GRPO.
#   SEEDS="2 3 4 5 6" JOBS=2 bash recipes/monitor_study/run.sh
# Half a minute for each arm and seed on one core, two minutes for the models of each seed. A study that was stopped
# goes on where it was.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Nothing was chosen on these: the quickstart's settings come from seeds 0 and 1.
SEEDS=${SEEDS:-"2 3 4 5 6 7 8 9 10"}
ARMS=${ARMS:-"over fusion moderate"}
# Seeds at a time, one core each.
JOBS=${JOBS:-1}
OUT=${OUT:-$HERE/out}
# VENV, PYTHON: ../environment.sh

# shellcheck source=/dev/null
source "$HERE/../environment.sh"
use_environment report
export PYTHONPATH=$ROOT/recipes/reset_study:$ROOT/recipes/quickstart:$ROOT/recipes/sft_ladder OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
one_seed() {
  python "$ROOT/recipes/quickstart/make_models.py" --seed "$1" --out "$OUT"
  python "$ROOT/recipes/quickstart/make_data.py" --seed "$1" --out "$OUT"
  # shellcheck disable=SC2086
  python "$HERE/monitored.py" --seeds "$1" --arms $ARMS --models "$OUT" --runs "$OUT/runs"
}

for seed in $SEEDS; do
  wait_for_room "$JOBS"
  in_background one_seed "$seed"
done
wait_for_all
python "$HERE/collect.py" "$OUT/runs" --to "$OUT/rows"
python "$HERE/alarm_tables.py" "$OUT/rows" | tee "$OUT/result.md"
rejuv report "$OUT"/runs/seed"${SEEDS%% *}"-* --output "$OUT/report.html"
