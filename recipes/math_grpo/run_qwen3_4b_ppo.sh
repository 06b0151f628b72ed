#!/usr/bin/env bash
# PPO with a critic of a Qwen3-4B checkpoint on one node of 8 GPUs.
set -euo pipefail
export ALGORITHM=ppo NNODES=${NNODES:-1} GEN_TP=${GEN_TP:-1} GROUP=${GROUP:-1} TRAIN_BATCH=${TRAIN_BATCH:-1024} MINI_BATCH=${MINI_BATCH:-256}
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_math_fsdp2.sh" "$@"
