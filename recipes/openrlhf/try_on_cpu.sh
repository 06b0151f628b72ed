#!/usr/bin/env bash
# The recipe's script on a CPU, as far as it goes there: a tiny checkpoint is rejuvenated and verified, and OpenRLHF's own
# parser and checks, from its published wheel, take the command. Its training needs CUDA (DeepSpeed, vLLM, flash-attention).
#   bash recipes/openrlhf/try_on_cpu.sh [OpenRLHF's arguments ...]
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${OUT:-$HERE/out/tiny}
# VENV, PYTHON: ../environment.sh; a VENV with OpenRLHF in its directory `beside`

# Derived from the above
# shellcheck source=/dev/null
source "$HERE/../environment.sh"

stage "1/3 environment (about 90 s the first time)"
use_environment report beside
export OMP_NUM_THREADS=1

stage "2/3 base, SFT checkpoint"
if [ ! -e "$OUT/sft" ]; then
  PYTHONPATH=$ROOT/tests python - "$OUT" 2> "$OUT/make.log" << 'END'
import sys
from pathlib import Path

import tiny

out = Path(sys.argv[1])
print(tiny.save_base(out / "base"))
print(tiny.save_sft(out / "sft", out / "base"))
END
fi

stage "3/3 run_grpo.sh, up to where OpenRLHF takes devices"
# In the place of an interpreter that has OpenRLHF: prints as JSON what it would train with.
printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s" "%s" "$@"\n' \
  "$VENV/beside/openrlhf-$(sed -n 's/openrlhf==//p' "$HERE/REQUIRED_OPENRLHF.txt")" "$VENV/bin/python" \
  "$ROOT/tests/openrlhf_arguments.py" > "$OUT/python"
chmod +x "$OUT/python"
SFT=$OUT/sft BASE=$OUT/base TRAIN=train.jsonl REWARD=reward.py PYTHON=$OUT/python OUT=$OUT/rl \
  bash "$HERE/run_grpo.sh" "$@" > "$OUT/arguments.json"
rejuv verify "$OUT/rl/rejuvenated-alpha${ALPHA:-0.5}"
python - "$OUT/arguments.json" << 'END'
import json
import sys

args = json.loads(open(sys.argv[1]).read().splitlines()[-1])
print("OpenRLHF would train", args["actor"]["model_name_or_path"])
print("estimator", args["algo"]["advantage"]["estimator"], "group", args["rollout"]["n_samples_per_prompt"])
END
