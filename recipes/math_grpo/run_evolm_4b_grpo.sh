#!/usr/bin/env bash
# The paper's first setting: GRPO of EvoLM-4B on one node of 8 GPUs. Its RL budget is not in the paper; STEPS is ours.
set -euo pipefail
export ALGORITHM=grpo NNODES=${NNODES:-1} GEN_TP=${GEN_TP:-1} MAX_PROMPT=${MAX_PROMPT:-1024} MAX_RESPONSE=${MAX_RESPONSE:-1024}
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_math_fsdp2.sh" "$@"
