#!/usr/bin/env bash
# The paper's first setting: GRPO of EvoLM-4B on one node of 8 GPUs. Batches, group, lengths and how often is validated are
# the paper's (README, Background); it does not say how many steps, so STEPS is ours.
set -euo pipefail
export ALGORITHM=grpo NNODES=${NNODES:-1} GEN_TP=${GEN_TP:-1} MAX_PROMPT=${MAX_PROMPT:-512} MAX_RESPONSE=${MAX_RESPONSE:-1024}
export TRAIN_BATCH=${TRAIN_BATCH:-512} MINI_BATCH=${MINI_BATCH:-128} GROUP=${GROUP:-8} TEST_FREQ=${TEST_FREQ:-50}
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_math_fsdp2.sh" "$@"
