# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The verdict: a table of cases."""

import json
from dataclasses import replace

import pytest
import torch

from rejuv_plugin.diagnose.answers import passes
from rejuv_plugin.diagnose.evidence import EVIDENCE, OVER
from rejuv_plugin.diagnose.signals import CATALOGUE, NAMES
from rejuv_plugin.diagnose.verdict import judge
from rejuv_plugin.ops.bootstrap import Estimate


def near(value: float, width: float = 0.01) -> Estimate:
    return Estimate(value, (value - width, value + width))


HEALTHY = {
    "entropy_sampled": near(0.5),
    "entropy": near(0.5),
    "entropy_ratio": near(0.8),
    "nll": near(0.6),
    "pass_at_1": near(0.3),
    "pass_at_k": near(0.7),
    "pass_gap": near(0.4),
    "pass_floor": Estimate(0.083, None),
    "drift_spikes": Estimate(0.09, None),
}
COLLAPSED = {"entropy_sampled": near(0.05), "entropy_ratio": near(0.1)}
WEAK = {"pass_at_1": near(0.02), "pass_at_k": near(0.12), "pass_gap": near(0.1)}


@pytest.mark.parametrize(
    ("found", "level"),
    [
        ({}, "ready"),
        # Published and clear: enough alone.
        ({"entropy_sampled": near(0.1)}, "over_trained"),
        # Of a single example nobody knows.
        ({"entropy_sampled": Estimate(0.05, None, known=False)}, "at_risk"),
        # Of a few not much is known, though their interval is far from the threshold.
        ({"entropy_sampled": replace(near(0.05), known=False)}, "at_risk"),
        ({"entropy_sampled": replace(near(0.9), known=False)}, "at_risk"),
        ({"entropy_ratio": replace(near(0.3), known=False), "drift_spikes": near(0.4)}, "at_risk"),
        # Its interval crosses the threshold, from either side.
        ({"entropy_sampled": near(0.17, 0.05)}, "at_risk"),
        ({"entropy_sampled": near(0.2, 0.05)}, "at_risk"),
        # Two of ours, where the published one leaves it open; one of ours alone; an uncertain one.
        ({"entropy_sampled": near(0.2, 0.05), "entropy_ratio": near(0.3), "drift_spikes": near(0.4)}, "over_trained"),
        ({"entropy_sampled": near(0.2, 0.05), "entropy_ratio": near(0.3)}, "at_risk"),
        ({"entropy_ratio": near(0.3)}, "at_risk"),
        ({"entropy_ratio": near(0.49, 0.1)}, "at_risk"),
        ({"entropy_ratio": near(0.51, 0.1)}, "ready"),
        # Two of ours against a published one that is clearly healthy.
        ({"entropy_ratio": near(0.3), "drift_spikes": near(0.4)}, "at_risk"),
        # Low headroom is not lost plasticity, and lost plasticity is not low headroom.
        (WEAK, "too_weak"),
        # Who never passes has no gap either.
        (dict.fromkeys(("pass_at_1", "pass_at_k", "pass_gap"), near(0.0, 0.0)), "too_weak"),
        ({"pass_at_1": near(0.01), "pass_at_k": near(0.05), "pass_gap": near(0.04, 0.005)}, "too_weak"),
        ({"pass_at_1": near(0.08)}, "at_risk"),
        (WEAK | COLLAPSED, "over_trained"),
        (WEAK | {"entropy_ratio": near(0.3)}, "at_risk"),
        # Teacher-forced entropy stands in for what was not sampled, and only then.
        ({"entropy": near(0.05)}, "ready"),
        ({"entropy": near(0.05), "entropy_sampled": None}, "over_trained"),
        ({"entropy": None, "entropy_sampled": None}, "unknown"),
        ({"entropy": None, "entropy_sampled": None} | WEAK, "unknown"),
        # A small gap is no bad sign where the prompts are solved.
        ({"pass_at_1": near(0.97), "pass_at_k": near(0.99), "pass_gap": near(0.02)}, "ready"),
        ({"pass_at_1": near(0.5), "pass_at_k": near(0.52), "pass_gap": near(0.02)}, "at_risk"),
        # Single answers.
        ({"pass_at_1": near(0.02), "pass_at_k": near(0.02), "pass_gap": None, "pass_floor": None}, "ready"),
        # Without a reward.
        ({"pass_at_1": None, "pass_at_k": None, "pass_gap": None, "pass_floor": None}, "ready"),
    ],
)
def test_levels(found: dict[str, Estimate | None], level: str) -> None:
    verdict = judge(HEALTHY | found)
    assert verdict.level == level
    assert bool(verdict.advice) == (level != "ready")


def test_without_a_reward_ready_says_what_it_does_not_know() -> None:
    verdict = judge({name: found for name, found in HEALTHY.items() if not name.startswith("pass")})
    assert verdict.level == "ready"
    assert "no answers were scored" in verdict.headline
    assert "no answers were scored" not in judge(HEALTHY).headline


def test_single_answers_are_no_evidence() -> None:
    """A gap of 0 between pass@1 and pass@1 is not that more tries find nothing."""
    scores = (torch.arange(64, dtype=torch.float64) % 10 < 6).double().unsqueeze(-1)
    others = {name: found for name, found in HEALTHY.items() if not name.startswith("pass")}
    verdict = judge(others | passes(scores, 0.5, 0).numbers)
    assert not {"pass_gap", "pass_at_1"} & {reason.signal for reason in verdict.reasons}
    assert verdict.level == "ready"
    assert "single answers were scored" in verdict.headline
    assert "single answers" not in judge(HEALTHY).headline


def test_reasons_say_what_was_compared_with_what() -> None:
    verdict = judge(HEALTHY | WEAK | COLLAPSED)
    told = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    first = told["reasons"][0]
    assert first["signal"] == "entropy_sampled"
    assert (first["value"], first["threshold"], first["bad"], first["met"]) == (0.05, 0.18, "below", True)
    assert first["interval"] == pytest.approx([0.04, 0.06])
    assert "2606.18487" in first["source"]
    weak = next(reason for reason in told["reasons"] if reason["signal"] == "pass_at_1")
    assert weak["threshold"] == 0.083
    # Met ones first; the others say that they were not seen.
    met = [reason["met"] for reason in told["reasons"]]
    assert met == sorted(met, reverse=True)
    assert all(reason["says"].startswith("not seen: ") != reason["met"] for reason in told["reasons"])
    assert "entropy_sampled 0.05 (below 0.18)" in told["headline"]
    assert any("rejuv tune" in advice for advice in told["advice"])


def test_what_means_something_else_here_is_said_not_to_be_judged() -> None:
    few = {"drift_spikes": Estimate(0.8, None), "drift_changed": Estimate(0.05, None)}
    assert judge(HEALTHY | {"drift_spikes": Estimate(0.8, None)}).level == "at_risk"
    verdict = judge(HEALTHY | few | {"pass_at_k": near(0.95)})
    assert verdict.level == "ready"
    told = json.loads(json.dumps(verdict.to_json(), allow_nan=False))["not_judged"]
    assert [each["signal"] for each in told] == ["pass_gap", "drift_spikes"]
    assert "rounded" in told[1]["why"]
    assert not {"pass_gap", "drift_spikes"} & {reason.signal for reason in verdict.reasons}
    assert judge(HEALTHY | few | {"drift_changed": Estimate(0.9, None)}).level == "at_risk"


def test_answers_that_were_cut_say_nothing_of_how_right_they_are() -> None:
    none_right = {"pass_at_1": Estimate(0.0, (0.0, 0.0)), "pass_gap": Estimate(0.0, (0.0, 0.0))}
    assert judge(HEALTHY | none_right).level != "ready"
    cut = judge(HEALTHY | none_right | {"finished": Estimate(0.1, (0.05, 0.2))})
    assert cut.level == "ready"
    assert "most answers were cut" in cut.headline
    assert {each.signal for each in cut.not_judged} == {"pass_at_1", "pass_gap"}
    assert "--max-response" in cut.not_judged[0].why


def test_one_published_rule_at_least_and_sources_for_all() -> None:
    assert {rule.signal for rule in EVIDENCE} <= set(NAMES)
    assert {rule.threshold for rule in EVIDENCE if isinstance(rule.threshold, str)} <= set(NAMES)
    assert {unless.signal for rule in EVIDENCE for unless in rule.unless} <= set(NAMES)
    assert [rule.signal for rule in EVIDENCE if rule.of == OVER and rule.weight == 2] == ["entropy_sampled", "entropy"]
    assert all("arXiv" in rule.source or rule.source.startswith("ours") for rule in EVIDENCE)
    assert all(rule.source.startswith("ours") for rule in EVIDENCE if rule.weight == 1)


def test_names_of_signals_are_their_own() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {signal.better for signal in CATALOGUE} == {"higher", "lower", "none"}
    assert all(signal.meaning and signal.unit and signal.healthy and signal.source for signal in CATALOGUE)
