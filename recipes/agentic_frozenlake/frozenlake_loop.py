# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's agent loop over FrozenLake: the model makes a move, gymnasium answers, until the episode is over.

verl finds it through agent.yaml, and workers import it by name, so this directory is on PYTHONPATH on every node.
"""

from typing import Any
from uuid import uuid4

from lake_game import ANSWER_TOKENS, Game
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.utils.profiler import simple_timer


class FrozenLakeLoop(AgentLoopBase):
    """One instance for each episode.

    The response is all that follows the opening, answers and views in turn. ``response_mask`` is 1 at the model's
    tokens and 0 at the environment's, chat markers included. The reward is gymnasium's: verl asks no reward function.

    Args:
        turns: moves until gymnasium ends the episode.
        **kwargs: verl's own, see ``AgentLoopBase``.
    """

    def __init__(self, *args: Any, turns: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = turns

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Play the lake in ``row["reward_model"]["ground_truth"]``; ``row["raw_prompt"]`` is its first view.

        Raises:
            ValueError: if the episode does not fit into ``data.max_response_length``, which would cut a turn in two.
        """
        game, messages = Game(row["reward_model"]["ground_truth"], self._turns), list(row["raw_prompt"])
        ids = await self.ct_build_initial_tokens(messages)
        prompt, mask, log_probs = len(ids), [], []
        metrics, versions, request = {}, [], uuid4().hex
        while True:
            with simple_timer("generate_sequences", metrics):
                said = await self.server_manager.generate(
                    request_id=request,
                    prompt_ids=ids,
                    sampling_params=sampling_params | {"max_tokens": ANSWER_TOKENS},
                )
            versions.append(said.extra_fields)
            merged, mask, log_probs = await self.ct_merge_assistant_token(
                ids, said.token_ids, mask, log_probs if said.log_probs else None, assistant_logprobs=said.log_probs
            )
            ids = merged.token_ids
            answer = self.tokenizer.decode(said.token_ids, skip_special_tokens=True)
            with simple_timer("tool_calls", metrics):
                game.answer(answer)
            if game.over:
                break
            before = [*messages, {"role": "assistant", "content": answer}]
            messages = [*before, {"role": "user", "content": game.shown}]
            merged, mask, log_probs = await self.ct_merge_context_msg(before, messages, ids, mask, log_probs)
            ids = merged.token_ids
        if len(mask) > self.rollout_config.response_length:
            raise ValueError(
                f"data.max_response_length: expected at least {len(mask)}, got {self.rollout_config.response_length}. "
                "Fix: room for all turns."
            )
        return AgentLoopOutput(
            prompt_ids=ids[:prompt],
            response_ids=ids[prompt:],
            response_mask=mask,
            response_logprobs=log_probs or None,
            reward_score=game.reward,
            num_turns=2 * game.turns,
            metrics=AgentLoopMetrics(**metrics),
            extra_fields={
                "reward_extra_info": {"acc": game.reward, "turns": game.turns},
                "min_global_steps": versions[0].get("min_global_steps"),
                "max_global_steps": versions[-1].get("max_global_steps"),
            },
        )
