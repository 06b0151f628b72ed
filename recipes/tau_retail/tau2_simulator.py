# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The user, played by a model behind an endpoint that speaks OpenAI's chat completions.

python tau2_simulator.py    asks it once, with the environment variables of agent.yaml; an error if nobody answers
"""

import asyncio
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

# Seconds between tries: four minutes, in which a server can be started again.
WAITS = (2, 4, 8, 16, 30, 60, 120)


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

    async def answer(self, messages: list[dict[str, str]], waits: Sequence[float] = WAITS) -> str:
        """The user's next message.

        Args:
            messages: the conversation as the user sees it, own words as "assistant".
            waits: seconds before another try, for each.

        Raises:
            RuntimeError: if the endpoint does not answer after all tries, with what it said.
        """
        body = {"model": self.model, "messages": messages, "seed": self.seed, "temperature": self.temperature}
        body["max_tokens"] = self.max_tokens
        said = ""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self.timeout), headers={"Authorization": f"Bearer {self.key}"}
        ) as session:
            for wait in (0, *waits):
                await asyncio.sleep(wait)
                try:
                    async with session.post(f"{self.url.rstrip('/')}/chat/completions", json=body) as response:
                        if response.status == 200:
                            reply = await response.json(content_type=None)
                            return without_thoughts(reply["choices"][0]["message"]["content"] or "")
                        said = f"status {response.status}: {(await response.text())[:300]}"
                        if response.status < 500 and response.status != 429:
                            break  # what is wrong with this request stays wrong
                except (TimeoutError, aiohttp.ClientError, LookupError, TypeError, ValueError) as error:
                    said = f"{type(error).__name__}: {error}"
        raise RuntimeError(
            f"SIMULATOR_URL: expected an answer of {self.model} at {self.url}, got {said}. "
            "Fix: SIMULATOR_URL, SIMULATOR_MODEL and the server behind them."
        )


def main() -> None:
    env = os.environ
    simulator = Simulator(
        env["SIMULATOR_URL"],
        env["SIMULATOR_MODEL"],
        int(env.get("SIMULATOR_SEED", "0")),
        float(env.get("SIMULATOR_TEMPERATURE", "0")),
        max_tokens=1,
        key=env.get("SIMULATOR_KEY", "none"),
    )
    try:
        asyncio.run(simulator.answer([{"role": "user", "content": "Hi!"}], waits=()))
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
