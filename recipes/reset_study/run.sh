#!/usr/bin/env bash
# Does the neuron reset help beyond fusion? Arms, seeds and paired statistics on the quickstart's task, without verl.
#   SEEDS="2 3 4 5 6" ARMS="main variants" JOBS=2 bash recipes/reset_study/run.sh
# Half a minute for each arm and seed on one core, two minutes for the models of each seed. A study that was stopped
# goes on where it was.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The quickstart's settings were chosen on seeds 0 and 1: they have no part in this.
SEEDS=${SEEDS:-"2 3 4 5 6 7 8 9 10 11"}
# Groups (main, variants) or names of arms, see arms.py.
ARMS=${ARMS:-"main"}
# Seeds at a time, one core each.
JOBS=${JOBS:-1}
OUT=${OUT:-$HERE/out}
# VENV, PYTHON: ../environment.sh

# shellcheck source=/dev/null
source "$HERE/../environment.sh"
use_environment report
# One thread: a second does not make models this small faster, and the last bits depend on it.
export PYTHONPATH=$ROOT/recipes/quickstart OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
one_seed() {
  python "$ROOT/recipes/quickstart/make_models.py" --seed "$1" --out "$OUT"
  python "$ROOT/recipes/quickstart/make_data.py" --seed "$1" --out "$OUT"
  # shellcheck disable=SC2086
  python "$HERE/study.py" --seeds "$1" --arms $ARMS --models "$OUT" --rows "$OUT/rows"
}

for seed in $SEEDS; do
  wait_for_room "$JOBS"
  in_background one_seed "$seed"
done
wait_for_all
python "$HERE/analyse.py" "$OUT/rows" --output "$OUT"
