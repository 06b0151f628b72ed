# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How a model is cut up over ranks."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Topology:
    tp: int = 1
    pp: int = 1
    vpp: int | None = None
    """Model chunks of a pipeline stage."""
    ep: int = 1
    etp: int | None = None
    """Tensor parallelism of the experts; None is that of the rest, ``tp``."""
    dp: int = 1
    """Replicas of the dense part, at least: experts over more ranks than tp * pp * dp add some."""
    vanilla: bool = False
    """mbridge in place of megatron-bridge."""
    packed: bool = True
    """Sequences one after the other, without padding."""

    @property
    def world(self) -> int:
        experts = self.ep * (self.tp if self.etp is None else self.etp) if self.ep > 1 else 1
        return self.pp * max(self.tp * self.dp, experts)

    def __str__(self) -> str:
        differing = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return "-".join(f"{name}{value}" for name, value in differing.items()) or "one"
