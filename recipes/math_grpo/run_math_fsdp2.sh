#!/usr/bin/env bash
# RL on math with Math-Verify's reward, FSDP2 and vLLM, from an over-trained SFT checkpoint that is rejuvenated first.
#   SFT=/models/my-sft BASE=/models/my-base TRAIN=train.parquet VAL=val.parquet bash recipes/math_grpo/run_math_fsdp2.sh
# The scripts beside it set the sizes of a model and an algorithm and call this one. Several nodes: start Ray on all, run
# this on the head with NNODES. Anything after the script's name goes to verl, last, so it wins; `--cfg job` starts nothing.
set -xeuo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# What you have
SFT=${SFT:?the over-trained SFT checkpoint, a directory}
BASE=${BASE:?the model that it started from, a directory}
TRAIN=${TRAIN:?RL prompts, parquet, from prepare_math.py}
VAL=${VAL:?validation prompts, parquet; several as ['a.parquet','b.parquet']}
REWARD=${REWARD:-$HERE/math_reward.py}
# OUT, rejuvenation, the cluster: defaults are in ../cluster.sh.

# grpo, dapo or ppo
ALGORITHM=${ALGORITHM:-grpo}

# The run
STEPS=${STEPS:-300}
TRAIN_BATCH=${TRAIN_BATCH:-256}
MINI_BATCH=${MINI_BATCH:-64}
GROUP=${GROUP:-8}
LR=${LR:-1e-6}
CRITIC_LR=${CRITIC_LR:-1e-5}
KL_COEF=${KL_COEF:-0.001}
MAX_PROMPT=${MAX_PROMPT:-1024}
MAX_RESPONSE=${MAX_RESPONSE:-3072}
# Samples of each validation prompt, at temperature 1.
VAL_N=${VAL_N:-4}
TEST_FREQ=${TEST_FREQ:-20}
SAVE_FREQ=${SAVE_FREQ:-50}
SEED=${SEED:-1}
# DAPO: length from which an answer is punished on its way to MAX_RESPONSE.
OVERLONG=${OVERLONG:-$((MAX_RESPONSE / 4))}

# Derived from the above
source "$HERE/../cluster.sh"
TOKENS=$((MAX_PROMPT + MAX_RESPONSE))
case $ALGORITHM in
  grpo)
    ALGORITHM_OVERRIDES=(
      algorithm.adv_estimator=grpo
      actor_rollout_ref.actor.use_kl_loss=True
      actor_rollout_ref.actor.kl_loss_coef="$KL_COEF"
    )
    ;;
  dapo)
    # Prompts whose answers are all right or all wrong are replaced by others until a batch is full. However long that
    # takes: verl's trainer knows no upper limit.
    ALGORITHM_OVERRIDES=(
      algorithm.adv_estimator=grpo
      algorithm.filter_groups.enable=True
      algorithm.filter_groups.metric=acc
      actor_rollout_ref.actor.use_kl_loss=False
      actor_rollout_ref.actor.clip_ratio_low=0.2
      actor_rollout_ref.actor.clip_ratio_high=0.28
      actor_rollout_ref.actor.loss_agg_mode=token-mean
      reward.reward_manager.name=dapo
      +reward.reward_kwargs.max_resp_len="$MAX_RESPONSE"
      +reward.reward_kwargs.overlong_buffer_cfg.enable=True
      +reward.reward_kwargs.overlong_buffer_cfg.len="$OVERLONG"
      +reward.reward_kwargs.overlong_buffer_cfg.penalty_factor=1.0
      +reward.reward_kwargs.overlong_buffer_cfg.log=False
    )
    ;;
  ppo)
    # The critic starts from the SFT checkpoint as it is: what it shall learn is the value of the policy's text.
    ALGORITHM_OVERRIDES=(
      algorithm.adv_estimator=gae
      algorithm.lam=1.0
      algorithm.gamma=1.0
      actor_rollout_ref.actor.use_kl_loss=True
      actor_rollout_ref.actor.kl_loss_coef="$KL_COEF"
      critic.model.path="$(quoted "$SFT")"
      critic.strategy=fsdp2
      critic.optim.lr="$CRITIC_LR"
      # What verl's trainer reads for both passes of the critic, by a name that its YAML does not have.
      +critic.ppo_infer_max_token_len_per_gpu=$((2 * TOKENS))
    )
    ;;
  *) echo "ALGORITHM: expected grpo, dapo or ppo, got $ALGORITHM. Fix: ALGORITHM=grpo." >&2; exit 2 ;;
esac

# exec: a signal to this script is one to verl.
exec python -m verl.trainer.main_ppo \
  "${MACHINE[@]}" \
  "${ALGORITHM_OVERRIDES[@]}" \
  algorithm.use_kl_in_reward=False \
  data.train_files="$(quoted "$TRAIN")" \
  data.val_files="$(quoted "$VAL")" \
  data.train_batch_size="$TRAIN_BATCH" \
  data.max_prompt_length="$MAX_PROMPT" \
  data.max_response_length="$MAX_RESPONSE" \
  data.filter_overlong_prompts=True \
  data.seed="$SEED" \
  actor_rollout_ref.model.path="$(quoted "$SFT")" \
  actor_rollout_ref.actor.strategy=fsdp2 \
  actor_rollout_ref.actor.optim.lr="$LR" \
  actor_rollout_ref.actor.ppo_mini_batch_size="$MINI_BATCH" \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=$((2 * TOKENS)) \
  actor_rollout_ref.actor.entropy_coeff=0.0 \
  actor_rollout_ref.ref.strategy=fsdp2 \
  actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True \
  actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=$((4 * TOKENS)) \
  actor_rollout_ref.rollout.n="$GROUP" \
  actor_rollout_ref.rollout.temperature=1.0 \
  actor_rollout_ref.rollout.max_model_len="$TOKENS" \
  actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
  actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=$((4 * TOKENS)) \
  actor_rollout_ref.rollout.val_kwargs.n="$VAL_N" \
  actor_rollout_ref.rollout.val_kwargs.do_sample=True \
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0 \
  reward.custom_reward_function.path="$(quoted "$REWARD")" \
  trainer.project_name=math_grpo \
  trainer.experiment_name="$(quoted "$ALGORITHM-$START")" \
  trainer.val_before_train=True \
  trainer.total_training_steps="$STEPS" \
  trainer.total_epochs=1000 \
  trainer.test_freq="$TEST_FREQ" \
  trainer.save_freq="$SAVE_FREQ" \
  "${RECORDS[@]}" \
  "${REJUVENATION[@]}" \
  "$@"
