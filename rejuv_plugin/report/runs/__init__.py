# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One page about RL runs, from what their monitors left.

From the top: `page` puts together what `verdict` says in words and `sections` choose to draw, as `curves` or
`layer_map`; `run` reads, `meaning` knows what metrics mean, `axes` have round numbers.
"""
