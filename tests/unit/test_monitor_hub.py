# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Monitors of several ranks: added up together, and turned off together."""

import weakref
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import ranks
import torch
import torch.distributed as dist
from torch import Tensor

from rejuv_plugin.integrations.verl.monitors import guarded
from rejuv_plugin.integrations.verl.monitors.guarded import Guard
from rejuv_plugin.integrations.verl.monitors.hub import Hub, Report
from rejuv_plugin.monitors.monitor import Monitor, Sums, Values


class Counting(Monitor):
    """Fails on ``bad`` from its ``after``-th look on, in `sums` or else in `values`."""

    catalogue = ()

    def __init__(self, name: str, every: int = 1, bad: int | None = None, after: int = 2, where: str = "sums") -> None:
        self.name, self.every = name, every  # type: ignore[misc]
        self._bad, self._after, self._where, self._looks = bad, after, where, 0

    def _fail(self, where: str) -> None:
        if where == self._where and self._bad == dist.get_rank() and self._looks >= self._after:
            raise ValueError("no such thing")

    def sums(self) -> Sums:
        self._looks += 1
        self._fail("sums")
        one = torch.tensor(float(dist.get_rank() + 1), dtype=torch.float64)
        return {"total": one, "count": torch.ones((), dtype=torch.float64), "layers": one.expand(2, 3)}

    def values(self, sums: Mapping[str, Tensor]) -> Values:
        self._fail("values")
        layers = sums["layers"].sum(dim=1).tolist()
        return Values({self.name: float(sums["total"] / sums["count"])}, {self.name: layers})


class Holding(Counting):
    """Tells when it was turned off."""

    def turn_off(self) -> None:
        turned_off.append((self.name, dist.get_rank()))
        raise RuntimeError("which ends nothing")


turned_off: list[tuple[str, int]] = []


def three_steps_with_one_that_fails() -> list[tuple[str, int]]:
    hub = Hub(
        {(name,): lambda name=name: [Holding(name, bad=0 if name == "bad" else None)] for name in ("a", "bad")}, "cpu"
    )
    assert [sorted(hub.report(step).failed) for step in (1, 2, 3)] == [[], ["bad"], []]
    return turned_off


def test_who_is_off_is_told_once_on_every_rank() -> None:
    assert ranks.run(three_steps_with_one_that_fails, 2) == [[("bad", 0)], [("bad", 1)]]


class Together(Counting):
    """Runs a collective by itself, as the pass over the probe set does."""

    def __init__(self, name: str, every: int, early: bool) -> None:
        super().__init__(name, every)
        self.early = early  # type: ignore[misc]

    def sums(self) -> Sums:
        dist.all_reduce(torch.ones(1000))
        return super().sums()


def three_steps(early: bool, *made: tuple) -> list[Report]:
    def broken() -> list[Monitor]:
        if dist.get_rank() == 1:
            raise OSError("not here")
        return [Together("unmakable", 1000, early)]

    makers: dict = {("early",): lambda: [Together("early", 2, early)]}
    makers |= {(arguments[0],): lambda arguments=arguments: [Counting(*arguments)] for arguments in made}
    hub = Hub({**makers, ("unmakable",): broken}, "cpu")
    reports = []
    for step in (1, 2, 3):
        if step < 3:
            hub.ahead(step)
        reports.append(hub.report(step))
    return reports


@pytest.mark.parametrize("where", ["sums", "values"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_what_fails_on_one_rank_is_off_on_all_and_the_rest_goes_on(world: int, where: str) -> None:
    bad = world - 1 if where == "sums" else 0
    found = ranks.run(three_steps, world, where == "sums", ("good",), ("bad", 1, bad, 2, where), ("rare", 2))
    for rank in range(world):
        one, two, three = found[rank]
        assert one.failed == ({} if world == 1 else {"unmakable": "rank 1: OSError: not here"})
        late = three if where == "values" else two
        assert list(late.failed) == ["bad"]
        assert "ValueError: no such thing" in late.failed["bad"]
        assert [report.failed for report in (two, three) if report is not late] == [{}]
    one, two, three = found[0]
    mean, total = (world + 1) / 2, world * (world + 1) / 2
    one.values.numbers.pop("unmakable", None)
    assert one.values.numbers == {"early": mean, "good": mean, "bad": mean, "rare": mean}
    assert one.values.layers["good"] == [3 * total, 3 * total]
    assert two.values.numbers == {"early": mean, "good": mean, "rare": mean}
    assert three.values.numbers == {"good": mean}, "every second step"
    assert all(report.values.numbers == {} for reports in found[1:] for report in reports)


class Full(Counting):
    """A stand-in for a device that on ``bad`` has no memory left for what is to be added up there."""

    def sums(self) -> Sums:
        class Large(Tensor):
            def to(self, *_: object, **__: object) -> Tensor:
                raise torch.OutOfMemoryError("7 GiB")

        found = super().sums()
        return found | {"total": found["total"].as_subclass(Large)} if self._bad == dist.get_rank() else found


def two_steps_of_a_full_device() -> list[Report]:
    hub = Hub({("good",): lambda: [Counting("good")], ("full",): lambda: [Full("full", bad=1, after=9)]}, "cpu")
    return [hub.report(step) for step in (1, 2)]


def test_a_device_without_room_on_one_rank_keeps_no_other_waiting() -> None:
    for one, two in ranks.run(two_steps_of_a_full_device, 2):
        assert one.failed == {"full": "rank 1: OutOfMemoryError: 7 GiB"}
        assert two.failed == {}
        assert one.values.numbers in ({"good": 1.5}, {})


def test_what_failed_keeps_nothing_alive() -> None:
    """Not in a guard, nor where its error is raised again and caught: it may be gigabytes of a GPU."""
    held = torch.ones(1)
    alive = weakref.ref(held)
    guard = Guard()

    def fail(of: Tensor) -> None:
        try:
            raise KeyError(of.shape)
        except KeyError:
            raise ValueError("while that was handled") from None

    guard(fail)(held)
    del held
    assert alive() is None
    with pytest.raises(ValueError, match="while that was handled"):
        guard.check()


class Laden(Counting):
    """Fails with something in its frame."""

    def __init__(self, guard: Guard) -> None:
        super().__init__("laden")
        self._guard = guard

    def sums(self) -> Sums:
        held = torch.ones(1)
        alive.append(weakref.ref(held))
        self._guard.check()
        return {"total": held}


alive: list = []


def a_failed_one_of_a_hub() -> bool:
    guard = Guard()
    guard.error = ValueError("kept")
    hub = Hub({("laden",): lambda: [Laden(guard)]}, "cpu")
    assert hub.report(1).failed == {"laden": "rank 0: ValueError: kept"}
    return alive.pop()() is None


def test_a_monitor_that_is_turned_off_keeps_nothing_alive() -> None:
    assert ranks.run(a_failed_one_of_a_hub, 1) == [True]


clock = [0.0]


class Working(Counting):
    """Takes a minute in a guard of its own while it is asked."""

    early = True

    def sums(self) -> Sums:
        with Guard():
            clock[0] += 60
        return super().sums()


def in_training() -> list[float]:
    Guard.spent()  # of other tests, before this process was forked
    guarded.time = SimpleNamespace(perf_counter=lambda: clock[0])  # type: ignore[assignment]
    hub = Hub({("working",): lambda: [Working("working")]}, "cpu")
    with Guard():
        clock[0] += 2
    hub.ahead(1)
    with Guard():
        clock[0] += 3
    return [hub.report(1).seconds, hub.report(2).seconds]


def test_time_that_hooks_take_of_training_is_told_once_and_without_that_of_the_looks() -> None:
    assert ranks.run(in_training, 1) == [[5.0, 0.0]]
