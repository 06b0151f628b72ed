# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Every metric, by its name in verl's logs without quantiles and layers."""

from . import groups
from .attention import AttentionMonitor
from .gradients import GradientsMonitor
from .likelihood import LikelihoodMonitor
from .metric import ACTOR, TRAINER, Metric
from .neurons import NeuronMonitor
from .representation import RankMonitor
from .sharpness import SharpnessMonitor
from .tokens import TokensMonitor
from .weights import WeightsMonitor

_WORKERS = (
    *(TokensMonitor, GradientsMonitor, WeightsMonitor),
    *(LikelihoodMonitor, NeuronMonitor, RankMonitor, AttentionMonitor, SharpnessMonitor),
)
ENTROPY_DROP = Metric(
    "entropy_drop",
    "1 - entropy / entropy of the run's first measured step where that was above 0",
    "share, at most 1",
    "below 0.5 by step 150",
    "none",
    "of `entropy`",
    "arXiv 2606.18487",
)

CATALOGUE: dict[str, Metric] = {
    **{f"{ACTOR}{metric.name}": metric for monitor in _WORKERS for metric in monitor.catalogue},
    f"{ACTOR}{ENTROPY_DROP.name}": ENTROPY_DROP,
    **{f"{TRAINER}{metric.name}": metric for metric in groups.CATALOGUE},
}
