# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What people read of a rejuvenation: words and pictures. Only `heatmap`, by matplotlib, needs the extra ``report``."""
