# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""An error of bad input is one line, whatever is in the names that it tells."""

import pickle

import pytest

from rejuv_plugin.errors import InputError


@pytest.mark.parametrize(
    "end", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"], ids=ascii
)
def test_a_name_with_a_line_break_makes_no_second_line(end: str) -> None:
    error = InputError(f"model{end}norm", f"a{end}b", f"c{end}", f"d{end}e.")
    assert str(error) == "model norm: expected a b, got c . Fix: d e."
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.key) == (str(error), f"model{end}norm")
