# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Every setting of the task, the models and the data, in one place. RL settings are in run_nav_fsdp2.sh."""

import argparse
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

# The code that decides what the models and the data are: part of the cache key.
CODE = ("settings.py", "reward.py", "nav_task.py", "nav_tokenizer.py", "make_models.py", "make_data.py")


@dataclass(frozen=True)
class Settings:
    """Frozen, so that the cache key computed from it cannot go stale."""

    # Task. Distance is |ax - bx| + |ay - by|. Nothing is ever trained on distances above `in_max`.
    in_min: int = 3
    in_max: int = 9
    out_min: int = 10
    out_max: int = 11

    # Shares of the in-distribution problems, by a stable hash. The rest are RL prompts.
    share_eval: float = 0.10
    share_sft: float = 0.10

    # Model: Qwen2, about 360 000 parameters, fp32.
    hidden_size: int = 96
    layers: int = 3
    heads: int = 4
    intermediate_size: int = 256

    # Base: broad pre-training on routes and on four side tasks. A small share of the routes is in chat format, and all
    # of those have a mistake.
    base_steps: int = 1500
    base_batch: int = 128
    base_lr: float = 2e-3
    base_route_share: float = 0.6
    base_chat_share: float = 0.02
    # Weights of the ways a route is written: straight, straight the other way, mixed, with a detour, with a mistake.
    base_styles: tuple[float, ...] = (0.15, 0.15, 0.35, 0.15, 0.20)

    # SFT: a small set of demonstrations, repeated. The ladder's rungs are epochs; the first is "moderate", the last
    # "over-trained": a rule fixed before any RL run.
    sft_problems: int = 64
    sft_batch: int = 16
    sft_lr: float = 1e-3
    sft_ladder: tuple[int, ...] = (4, 64)

    # Data for RL and validation.
    train_prompts: int = 3200
    eval_in: int = 96
    eval_out: int = 64

    # Threads of the model making: fixed, because the last bits depend on it. A second thread does not make it faster.
    threads: int = 1

    def fingerprint(self) -> str:
        """Hash of the settings and of the code that uses them: models made by other code are never reused."""
        digest = hashlib.sha256(repr(sorted(asdict(self).items())).encode())
        for name in CODE:
            digest.update((HERE / name).read_bytes())
        return digest.hexdigest()[:12]


def models_dir(out: Path, seed: int, settings: Settings) -> Path:
    """Where the models and the data of one seed live."""
    return out / "models" / f"seed{seed}-{settings.fingerprint()}"


def main() -> None:
    """Print where the models of a seed are, for the shell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "out")
    args = parser.parse_args()
    print(models_dir(args.out, args.seed, Settings()))


if __name__ == "__main__":
    main()
