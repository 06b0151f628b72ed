#!/usr/bin/env bash
# DAPO of a Qwen3-8B checkpoint on two nodes of 8 GPUs.
set -euo pipefail
export ALGORITHM=dapo NNODES=${NNODES:-2} GEN_TP=${GEN_TP:-2} MAX_RESPONSE=${MAX_RESPONSE:-8192}
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_math_fsdp2.sh" "$@"
