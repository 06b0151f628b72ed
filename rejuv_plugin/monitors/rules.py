# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""When a policy that learns is in trouble: the table of alarms, with levels, sources, reasons and advice."""

from .judges import (
    ALIKE,
    COLLAPSE_BY,
    FADED,
    NORM_LEVEL,
    SOLVED,
    START,
    WINDOW,
    Rule,
    all_solved,
    collapse,
    dormant,
    frozen,
    low_at_start,
    no_signal,
    stalled,
    zero_advantage,
)

_TRIAGE = "arXiv 2606.18487"
_OURS = "ours: no published threshold"
_PASS = (
    *("training/plasticity/pass_rate", "training/plasticity/pass_rate_floor"),
    "training/plasticity/zero_advantage_groups",
)

RULES = (
    Rule(
        name="low_entropy_at_start",
        reads=("actor/plasticity/entropy",),
        level=0.18,
        clear=0.20,
        after=1,
        clear_after=5,
        judge=low_at_start,
        when=f"mean token entropy of the first {START} measured steps below {{level}} nats; judged once",
        source=_TRIAGE,
        why="a policy this certain explores little: along an SFT ladder the entropy before RL predicted the outcome of "
        f"GRPO ({_TRIAGE})",
        try_="start from an earlier SFT checkpoint, or rejuvenate with a smaller alpha (rejuvenation.fusion.alpha)",
    ),
    Rule(
        name="entropy_collapse",
        reads=("actor/plasticity/entropy_drop",),
        level=0.5,
        clear=0.4,
        after=3,
        clear_after=5,
        judge=collapse,
        when=f"token entropy has dropped by more than {{level}} of its start by step {COLLAPSE_BY}",
        source=_TRIAGE,
        why=f"what is no longer sampled cannot be rewarded; the second alarm of the same source ({_TRIAGE})",
        try_="a lower learning rate, a higher upper clip ratio, a KL or entropy term, harder prompts; or an earlier "
        "checkpoint of this run",
    ),
    Rule(
        name="no_signal",
        reads=_PASS,
        level=1.0,
        clear=1.2,
        after=3,
        clear_after=3,
        judge=no_signal,
        when=f"pass rate (mean of {WINDOW} steps) below {{times}}p*(g) = 1 - 2^(-1/g), in groups of g, while "
        f"{ALIKE:.0%} of the prompts and more have no advantage",
        source=_TRIAGE,
        why=f"below p*(g) most groups have no right answer, hence no advantage and no gradient ({_TRIAGE})",
        try_="easier prompts, larger groups (rollout.n), a denser reward; check the reward function on known answers",
    ),
    Rule(
        name="all_solved",
        reads=_PASS,
        level=1.0,
        clear=1.2,
        after=3,
        clear_after=3,
        judge=all_solved,
        when=f"pass rate (mean of {WINDOW} steps) above 1 - {{times}}p*(g), while {ALIKE:.0%} of the prompts and more "
        "have no advantage",
        source=f"the mirror image of no_signal ({_TRIAGE})",
        why="most groups have only right answers, so there is nothing left to learn from these prompts",
        try_="harder prompts, or filter the solved ones; if validation is as good as you need, stop here",
    ),
    Rule(
        name="zero_advantage",
        reads=("training/plasticity/zero_advantage_groups", "training/plasticity/pass_rate"),
        level=0.5,
        clear=0.4,
        after=3,
        clear_after=5,
        judge=zero_advantage,
        when=f"more than {{level}} of the prompts without an advantage though less than {SOLVED:g} of the answers pass "
        f"(means of {WINDOW} steps)",
        source=_OURS,
        why="most prompts cost rollouts and teach nothing, as all answers to one earn the same, and not because they "
        "are solved: the policy always fails where it fails (the levels are ours)",
        try_="an earlier SFT checkpoint or a smaller alpha, whose answers differ more; larger groups (rollout.n), "
        "prompts of middling difficulty, dynamic sampling (filter groups)",
    ),
    Rule(
        name="stalled_update",
        reads=("actor/plasticity/update_ratio", "actor/grad_norm", "actor/lr"),
        level=0.5,
        clear=0.7,
        after=3,
        clear_after=5,
        judge=stalled,
        when=f"updates (by learning rate, mean of {WINDOW} steps) below {{level}} of their baseline while the gradient "
        f"norm is above {NORM_LEVEL:g} times its own",
        source="the pair: arXiv 2606.09932; the levels are ours",
        why="a gradient norm that grows looks like progress on a dashboard: with smaller updates it was the sign of "
        "policies that stalled after SFT (arXiv 2606.09932)",
        try_="compare validation with an earlier checkpoint; larger batches; if the start was over-trained, "
        "rejuvenate it",
    ),
    Rule(
        name="frozen_bits",
        reads=("actor/plasticity/changed_bits", "actor/lr"),
        level=1e-4,
        clear=2e-4,
        after=5,
        clear_after=3,
        judge=frozen,
        when="share of bf16 weights that changed below {level} times r, the learning rate over its highest so far, "
        f"though r is above {FADED:g} and not rising",
        source=_OURS,
        why="the rollout samples from bf16 weights: these hardly differ from one step to the next, so RL does not act "
        "on the policy (the level is ours)",
        try_="check that prompts have advantages; then a higher learning rate; see whether weights are kept in float32",
    ),
    Rule(
        name="dormant_growth",
        reads=("actor/plasticity/probe/grama_dormant_0.025_layers/q50",),
        level=0.1,
        clear=0.05,
        after=2,
        clear_after=2,
        judge=dormant,
        when="share of dormant neurons (GraMa score at most 0.025, median layer) up by more than {level} since the "
        "first probe",
        source=_OURS,
        why="neurons that gradients no longer reach cannot be reshaped by reward (the level is ours, and dormancy is "
        "no sure sign: arXiv 2606.24752)",
        try_="a lower learning rate; an earlier checkpoint; look at the map over layers in rejuv report",
    ),
)
