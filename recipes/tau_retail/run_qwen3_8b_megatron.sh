#!/usr/bin/env bash
# The paper's second setting, a Qwen3-8B agent, under Megatron on one node of 8 GPUs. Variables: README.md, run_tau2.sh.
set -euo pipefail
export GEN_TP=${GEN_TP:-2}
TP=${TP:-4}
PP=${PP:-1}
CP=${CP:-2}
export SPLIT=$CP
OFFLOAD=${OFFLOAD:-True}
# Of each layer only the input is kept, the rest computed again; null: all is kept.
RECOMPUTE=${RECOMPUTE:-full}
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_tau2.sh" \
  model_engine=megatron \
  actor_rollout_ref.model.use_remove_padding=True \
  actor_rollout_ref.actor.megatron.tensor_model_parallel_size="$TP" \
  actor_rollout_ref.actor.megatron.pipeline_model_parallel_size="$PP" \
  actor_rollout_ref.actor.megatron.context_parallel_size="$CP" \
  actor_rollout_ref.actor.megatron.override_transformer_config.recompute_granularity="$RECOMPUTE" \
  actor_rollout_ref.actor.megatron.override_transformer_config.recompute_method=uniform \
  actor_rollout_ref.actor.megatron.override_transformer_config.recompute_num_layers=1 \
  actor_rollout_ref.actor.megatron.param_offload="$OFFLOAD" \
  actor_rollout_ref.actor.megatron.optimizer_offload="$OFFLOAD" \
  actor_rollout_ref.ref.megatron.tensor_model_parallel_size="$TP" \
  actor_rollout_ref.ref.megatron.pipeline_model_parallel_size="$PP" \
  actor_rollout_ref.ref.megatron.context_parallel_size="$CP" \
  actor_rollout_ref.ref.megatron.param_offload="$OFFLOAD" \
  "$@"
