# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What the pictures of a report are drawn with: axes, thinned curves, maps of layers."""

import base64
import math
import struct
import zlib

from rejuv_plugin.report.page.axes import names, numbers, scale, step_ticks
from rejuv_plugin.report.page.document import Detail
from rejuv_plugin.report.page.plot import thinned
from rejuv_plugin.report.runs.layer_map import Rows, layer_map


def test_axes_are_round_and_hold_their_values() -> None:
    axis = scale([6.2e-9, 7.0e-9])
    assert axis.exponent == -9
    assert axis.unit == " (×10⁻⁹)"  # noqa: RUF001
    assert axis.labels == ("6.2", "6.4", "6.6", "6.8", "7.0")
    assert scale([0.2, 0.9]).ticks[0] == 0.0
    for values in ([0.0, 1.0], [-3.0, 8.0], [1e-7, 3e5], [99.0, 101.0]):
        axis = scale(values)
        assert all(0 <= axis.share(value) <= 1 + 1e-9 for value in values)
        assert len(set(axis.labels)) == len(axis.labels) == len(axis.ticks) >= 3
    assert step_ticks(1, 40) == [10, 20, 30, 40]
    assert step_ticks(7, 7) == [7]


def test_an_axis_under_one_value_begins_at_zero() -> None:
    assert scale([1.0, 1.0]).ticks[0] == 0.0
    assert scale([1.0]).high == 1.0
    assert (scale([0.0]).low, scale([0.0]).high) == (0.0, 1.0)
    assert scale([-2.0]).high == 0.0
    assert numbers([0.2, 0.8], "alpha").low == 0.2, "positions do not"


def test_names_say_what_they_share_once_and_slant_where_they_would_touch() -> None:
    axis = names(["base", "global_step_8", "global_step_64"], "checkpoint", 300)
    assert axis.title == "checkpoint (global_step_…)"
    assert axis.ticks == [(0.0, "base"), (1.0, "8"), (2.0, "64")]
    assert not axis.slanted
    assert axis.says(1.0) == "global_step_8"
    axis = names([f"a rather long name {index}" for index in range(12)], "checkpoint", 300)
    assert axis.slanted
    assert axis.ticks[3] == (3.0, "… long name 3")
    assert len(names([str(index) * 9 for index in range(100)], "checkpoint", 300).ticks) == 25


def test_thinning_keeps_the_mean_of_values_and_of_steps() -> None:
    points = [(step, float(step)) for step in range(1, 101)]
    thin = thinned(points, 30)
    assert thin[0] == (3, 2.5)
    assert thin[-1] == (99, 98.5)
    assert len(thin) == 25
    assert thinned([], 30) == []


def test_a_map_is_a_picture_of_its_values_with_the_first_layer_at_the_bottom() -> None:
    rows: Rows = [(1, [None, 0.0]), (2, [0.5, 1.0])]
    html = layer_map("a", "nats", rows, (0.0, 1.0), Detail(10, 10, True), "m", "run")
    data = base64.b64decode(html.partition("data:image/png;base64,")[2].partition('"')[0])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (2, 2)
    start = data.index(b"IDAT") + 4
    pixels = zlib.decompress(data[start : data.index(b"IEND") - 8])
    top, bottom = pixels[1:9], pixels[10:18]
    assert (top[:4].hex(), top[4:].hex()) == ("440154ff", "fde725ff")
    assert bottom[:4] == bytes(4)
    assert math.dist(bottom[4:7], bytes.fromhex("21918c")) < 6, "viridis in the middle"


# The command
