# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a long job says of itself, on a terminal and in a log."""

import io
import re
import sys

import pytest

from rejuv_plugin.checkpoint import bars, progress
from rejuv_plugin.checkpoint.progress import ProgressLines


class Terminal(io.StringIO):
    """A stand-in for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, to be set."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as tell:
        for second in range(70):
            clock[0] = 1000.0 + second
            tell("sft", second, 7300)
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "rejuv: probing the SFT checkpoint: 30 of 7300, 2:01:10 left",
        "rejuv: probing the SFT checkpoint: 60 of 7300, 2:00:40 left",
    ]
    assert out == "", "for what is printed as JSON"


def test_many_short_phases_are_a_long_job(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as tell:
        for second in range(0, 70, 10):
            clock[0] = 1000.0 + second
            tell(f"alpha {second}", 3, 3)
    # Nothing is known of the rate at the first call of a phase.
    assert capsys.readouterr().err == "rejuv: alpha 30: 3 of 3\nrejuv: alpha 60: 3 of 3\n"


def test_a_short_job_is_quiet(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as tell:
        clock[0] += 29.9
        tell("hash", 5, 5)
        tell("write", 5, 5)
    assert capsys.readouterr() == ("", "")


def test_the_rate_is_of_what_was_done_here(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    tell = ProgressLines()
    # A resumed job begins with what is there.
    tell("write", 80_000_000_000, 100_000_000_000)
    clock[0] += 10
    tell("write", 81_000_000_000, 100_000_000_000)
    # The same phase anew, as of another file.
    tell("write", 0, 50_000_000_000)
    clock[0] += 10
    tell("write", 5_000_000_000, 50_000_000_000)
    assert capsys.readouterr().out.splitlines() == [
        "rejuvenation: writing output: 81.0 of 100.0 GB, 0.10 GB/s, 0:03:10 left",
        "rejuvenation: writing output: 5.0 of 50.0 GB, 0.50 GB/s, 0:01:30 left",
    ]


def test_the_bars_that_move_are_those_that_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with bars() as tell:
        for number in range(30):
            tell(f"alpha {number}", 1, 2)
        # It was hidden, and goes on.
        tell("alpha 7", 2, 2)
    # The last picture.
    frame = re.findall(r"alpha (\d+)", terminal.getvalue())[-12:]
    assert sorted(map(int, frame)) == [7, *range(19, 30)]
