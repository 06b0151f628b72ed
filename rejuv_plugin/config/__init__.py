# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The settings of one rejuvenation: plain dataclasses, shared by the console command and the Hydra group."""

from .diagnosis import DiagnosisConfig
from .group import RejuvenationConfig, defaults, from_mapping
from .monitors import MonitorProbeConfig, MonitorsConfig
from .transform import FusionConfig, ResetConfig
from .tuning import TuningConfig

__all__ = [
    "DiagnosisConfig",
    "FusionConfig",
    "MonitorProbeConfig",
    "MonitorsConfig",
    "RejuvenationConfig",
    "ResetConfig",
    "TuningConfig",
    "defaults",
    "from_mapping",
]
