# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Every setting of the lakes, the models and the data, in one place. RL settings are in run_frozenlake_fsdp2.sh."""

import argparse
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from settings import models_dir

HERE = Path(__file__).resolve().parent
RECIPES = HERE.parent

# The code that decides what the models and the data are: part of the cache key.
CODE = (
    *(HERE / name for name in ("lake_settings.py", "lake_game.py", "lake_task.py", "make_lake.py")),
    *(RECIPES / name for name in ("quickstart/nav_tokenizer.py", "quickstart/make_models.py", "reset_study/grpo.py")),
)


@dataclass(frozen=True)
class LakeSettings:
    """Frozen, so that the cache key computed from it cannot go stale. `make_models.py` reads the model's names."""

    # Lakes: gymnasium's random maps of 4 x 4 tiles, by seed. Nothing is ever trained on more holes than `in_holes`.
    size: int = 4
    frozen: float = 0.7
    lakes: int = 4000
    in_holes: tuple[int, int] = (2, 5)
    out_holes: tuple[int, int] = (6, 9)

    # Shares of the in-distribution lakes, by a stable hash. The rest are RL prompts.
    share_eval: float = 0.10
    share_sft: float = 0.15

    # Moves until gymnasium ends an episode. The shortest way of any lake takes 6.
    turns: int = 8

    # Model: Qwen2, about 100 000 parameters, fp32.
    hidden_size: int = 48
    layers: int = 3
    heads: int = 4
    intermediate_size: int = 128

    # Base: games of mixed quality. Each move is a best one with this probability, else any.
    base_steps: int = 400
    base_batch: int = 64
    base_lr: float = 5e-3
    base_quality: float = 0.75
    base_turns: tuple[int, ...] = (1, 1, 1, 1, 2, 3, 8)

    # SFT: a few games without a mistake, repeated. The ladder's rungs are epochs; the first is "moderate", the last
    # "over-trained": a rule fixed before any RL run.
    sft_games: int = 32
    sft_batch: int = 8
    sft_lr: float = 1e-3
    sft_ladder: tuple[int, ...] = (4, 64)

    # Data for RL and validation.
    train_prompts: int = 640
    eval_in: int = 64
    eval_out: int = 64

    # Threads of the model making: fixed, because the last bits depend on it.
    threads: int = 1

    def fingerprint(self) -> str:
        """Hash of the settings and of the code that uses them: models made by other code are never reused."""
        digest = hashlib.sha256(repr(sorted(asdict(self).items())).encode())
        for path in CODE:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]


def main() -> None:
    """Print where the models of a seed are, for the shell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "out")
    args = parser.parse_args()
    print(models_dir(args.out, args.seed, LakeSettings()))


if __name__ == "__main__":
    main()
