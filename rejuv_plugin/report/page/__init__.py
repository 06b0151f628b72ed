# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What every page is made of, whatever it is about: one HTML file that needs nothing else and runs nothing.

From the top: `document` is the file and its limit; `sections` are its headings; `plot`, `heat` and `table` draw;
`figure` frames a drawing and makes it a download; `axes`, `style` and `text` are what these share.
"""
