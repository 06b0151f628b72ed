# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The user, played by a model behind an endpoint that speaks OpenAI's chat completions."""

import asyncio
import re
from dataclasses import dataclass

import aiohttp

TRIES = 5


def without_thoughts(text: str) -> str:
    """What the other side gets to read: no closed thoughts, and nothing of one that was cut off."""
    return re.sub(r"<think>.*?(</think>|\Z)", "", text, flags=re.DOTALL).strip()


@dataclass(frozen=True)
class Simulator:
    """Where the user's model is and how it samples; all of it is part of a run's record.

    ``seed`` goes with every request: where the server honours it, the same words get the same answer, also with a
    temperature, and all conversations of a group open alike.
    """

    url: str
    model: str
    seed: int = 0
    temperature: float = 0.0
    max_tokens: int = 512
    timeout: float = 120.0
    key: str = "none"

    async def answer(self, messages: list[dict[str, str]]) -> str:
        """The user's next message. ``messages``: the conversation as the user sees it, own words as "assistant".

        Raises:
            RuntimeError: if the endpoint does not answer after five tries, with what it said.
        """
        body = {"model": self.model, "messages": messages, "seed": self.seed, "temperature": self.temperature}
        body["max_tokens"] = self.max_tokens
        said = ""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self.timeout), headers={"Authorization": f"Bearer {self.key}"}
        ) as session:
            for attempt in range(TRIES):
                if attempt:
                    await asyncio.sleep(2**attempt)
                try:
                    async with session.post(f"{self.url.rstrip('/')}/chat/completions", json=body) as response:
                        if response.status == 200:
                            reply = await response.json(content_type=None)
                            return without_thoughts(reply["choices"][0]["message"]["content"] or "")
                        said = f"status {response.status}: {(await response.text())[:300]}"
                        if response.status < 500 and response.status != 429:
                            break  # what is wrong with this request stays wrong
                except (TimeoutError, aiohttp.ClientError) as error:
                    said = f"{type(error).__name__}: {error}"
        raise RuntimeError(
            f"simulator: expected an answer of {self.model} at {self.url}, got {said}. "
            "Fix: SIMULATOR_URL, SIMULATOR_MODEL and the server behind them."
        )
