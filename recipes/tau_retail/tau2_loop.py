# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's agent loop over tau2's retail domain: the policy is the agent, a served model the customer.

A turn with tool calls is answered by the tools, any other by the customer. verl's ToolAgentLoop ends at a turn without
a call, so it cannot host a customer. Workers import this file by name: its directory is on PYTHONPATH on every node.
"""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from tau2_domain import Episode, customer, domain
from tau2_simulator import Simulator, without_thoughts
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.experimental.agent_loop.tool_parser import ToolParser
from verl.utils.profiler import simple_timer


class RetailLoop(AgentLoopBase):
    """One instance for each conversation.

    The prompt is the policy, the tools and the customer's opening; the response all that follows. ``response_mask`` is
    1 at the agent's tokens and 0 at the customer's, the tools' and the chat's markers. The reward is
    ``Episode.outcome``: verl asks no reward function.

    Args:
        turns: messages of the agent, calls included, until the conversation is cut (worth 0).
        simulator: fields of ``Simulator``.
        transcripts: directory in which every conversation becomes a JSON file, or None.
        **kwargs: verl's own, see ``AgentLoopBase``.
    """

    def __init__(
        self, *args: Any, turns: int, simulator: dict[str, Any], transcripts: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._turns = turns
        self._simulator = Simulator(**simulator)
        self._transcripts = Path(transcripts) if transcripts else None
        self._parser = ToolParser.get_tool_parser(self.rollout_config.multi_turn.format, self.tokenizer)

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Have the conversation about the task in ``row["reward_model"]["ground_truth"]``.

        Raises:
            ValueError: if the opening does not fit into ``data.max_prompt_length``, which would cut the policy.
            RuntimeError: if the customer's endpoint does not answer.
        """
        task, schemas = row["reward_model"]["ground_truth"], domain().schemas
        episode, user, metrics, versions, request = Episode(task), customer(task), {}, [], uuid4().hex
        messages = [*row["raw_prompt"], {"role": "user", "content": await self._ask(user, episode)}]
        ids = await self.ct_build_initial_tokens(messages, tools=schemas)
        prompt, mask, log_probs, room = len(ids), [], [], self.rollout_config.response_length
        if prompt >= self.rollout_config.prompt_length:
            raise ValueError(
                f"data.max_prompt_length: expected more than the opening's tokens, got {prompt} of them, cut there. "
                "Fix: room for the policy, the tools and a message."
            )
        for turn in range(1, self._turns + 1):
            with simple_timer("generate_sequences", metrics):
                said = await self.server_manager.generate(
                    request_id=request,
                    prompt_ids=ids,
                    sampling_params=sampling_params | {"max_tokens": room - len(mask)},
                )
            versions.append(said.extra_fields)
            merged, mask, log_probs = await self.ct_merge_assistant_token(
                ids, said.token_ids, mask, log_probs if said.log_probs else None, assistant_logprobs=said.log_probs
            )
            ids, answer = merged.token_ids, self.tokenizer.decode(said.token_ids, skip_special_tokens=True)
            before = messages = [*messages, {"role": "assistant", "content": answer}]
            if len(mask) >= room:
                break  # cut in the middle of a word: nobody answers that
            _, calls = await self._parser.extract_tool_calls(said.token_ids)
            with simple_timer("tool_calls", metrics):
                if calls:
                    answers = [await self._call(call, episode) for call in calls]
                    messages = [*before, *({"role": "tool", "content": answer} for answer in answers)]
                else:
                    shown = without_thoughts(answer)
                    episode.tell_user(shown)
                    user.append({"role": "user", "content": shown})
                    messages = [*before, {"role": "user", "content": await self._ask(user, episode)}]
            if episode.finished or turn == self._turns:
                break
            merged, longer, longer_log_probs = await self.ct_merge_context_msg(
                before, messages, ids, mask, log_probs or None, tools=schemas
            )
            if len(longer) >= room:
                break
            ids, mask, log_probs = merged.token_ids, longer, longer_log_probs
        outcome = await episode.outcome()
        self._keep(task, messages, outcome)
        return AgentLoopOutput(
            prompt_ids=ids[:prompt],
            response_ids=ids[prompt:][:room],
            response_mask=mask[:room],
            response_logprobs=log_probs[:room] if log_probs else None,
            reward_score=outcome["score"],
            num_turns=len(messages) - 1,
            metrics=AgentLoopMetrics(**metrics),
            extra_fields={
                "reward_extra_info": {"acc": outcome["score"], **{k: v for k, v in outcome.items() if k != "score"}},
                "min_global_steps": versions[0].get("min_global_steps"),
                "max_global_steps": versions[-1].get("max_global_steps"),
            },
        )

    async def _ask(self, user: list[dict[str, str]], episode: Episode) -> str:
        """The customer's next message, kept on the customer's own side (``user``) too."""
        text = await self._simulator.answer(user)
        user.append({"role": "assistant", "content": text})
        episode.hear_user(text)
        return text

    async def _call(self, call: Any, episode: Episode) -> str:
        arguments = json.loads(call.arguments)  # verl's parsers hand on valid JSON alone
        if not isinstance(arguments, dict):
            return await episode.call(call.name, {"arguments": arguments})
        return await episode.call(call.name, arguments)

    def _keep(self, task: str, messages: list[dict[str, Any]], outcome: dict[str, float]) -> None:
        if self._transcripts is None:
            return
        self._transcripts.mkdir(parents=True, exist_ok=True)
        with (self._transcripts / f"{uuid4().hex}.json").open("w") as file:
            json.dump({"task": task, "messages": messages, "outcome": outcome}, file)
