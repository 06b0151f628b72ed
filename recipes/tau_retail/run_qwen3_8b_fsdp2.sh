#!/usr/bin/env bash
# The paper's second setting, a Qwen3-8B agent, under FSDP2 on one node of 8 GPUs. Variables: README.md, run_tau2.sh.
set -euo pipefail
export GEN_TP=${GEN_TP:-2}
# Sequences of 24 000 tokens: their activations are split over so many GPUs.
ULYSSES=${ULYSSES:-4}
export SPLIT=$ULYSSES
OFFLOAD=${OFFLOAD:-True}
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_tau2.sh" \
  actor_rollout_ref.actor.strategy=fsdp2 \
  actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size="$ULYSSES" \
  actor_rollout_ref.actor.fsdp_config.param_offload="$OFFLOAD" \
  actor_rollout_ref.actor.fsdp_config.optimizer_offload="$OFFLOAD" \
  actor_rollout_ref.ref.strategy=fsdp2 \
  actor_rollout_ref.ref.fsdp_config.ulysses_sequence_parallel_size="$ULYSSES" \
  actor_rollout_ref.ref.fsdp_config.param_offload="$OFFLOAD" \
  "$@"
