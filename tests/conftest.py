# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the helpers beside the tests importable: ``import tiny``, ``from verl_jobs.job import Job``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
