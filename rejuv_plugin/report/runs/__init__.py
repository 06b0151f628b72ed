# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One page about RL runs, from what their monitors left.

From the top: `page` puts together what `verdict` says in words and `sections` choose to draw; `run` reads, `meaning`
knows what metrics mean, `layer_map` is a picture of one. What a page is made of: `report.page`.
"""
