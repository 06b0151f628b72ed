# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Every signal of a diagnosis, in reading order: what it means and what is known about it."""

from dataclasses import asdict, dataclass

from ..monitors.metric import Metric
from ..monitors.neurons import NeuronMonitor
from ..monitors.representation import RankMonitor
from .evidence import NEAR_ROUNDING
from .sharpness import EXAMPLES, RADIUS

_TRIAGE = "arXiv 2606.18487"
_PAPER = "arXiv 2606.09932"
_PROMPTS = "; 95 % interval: bootstrap over prompts"
_EXAMPLES = "; 95 % interval: bootstrap over calibration examples"
_UNKNOWN = "no threshold is known"


@dataclass(frozen=True)
class Signal:
    """One row of the catalogue."""

    name: str
    meaning: str
    unit: str
    """And the range."""
    healthy: str
    """What to expect before RL; `no threshold is known` where that is so."""
    source: str
    better: str
    """``higher``, ``lower``, or ``none``: what speaks for a checkpoint that can still learn."""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


_ANSWERS = (
    Signal(
        "entropy_sampled",
        f"entropy of the next token at the sampling temperature, mean over the tokens of the own answers{_PROMPTS}",
        "nats, 0 to log(vocabulary)",
        "above 0.18; below it the risk that GRPO fails is high",
        _TRIAGE,
        "higher",
    ),
    Signal(
        "top1_mass_sampled",
        f"probability of the likeliest next token at the sampling temperature, mean over the own answers{_PROMPTS}",
        "probability, 1/vocabulary to 1",
        f"{_UNKNOWN}; near 1 all answers to a prompt are the same",
        "max p",
        "lower",
    ),
    Signal(
        "pass_at_1",
        f"share of answers that pass: what an answer of RL's first step earns{_PROMPTS}",
        "share, 0 to 1",
        "above pass_floor: else most groups have no right answer to learn from",
        _TRIAGE,
        "higher",
    ),
    Signal(
        "pass_at_k",
        f"chance that one of g answers passes, unbiased{_PROMPTS}",
        "share, 0 to 1",
        "well above pass_at_1",
        "Chen et al., arXiv 2107.03374, Eq. 1",
        "higher",
    ),
    Signal(
        "pass_gap",
        f"pass_at_k - pass_at_1: what sampling finds beyond the likely answer{_PROMPTS}",
        "share, 0 to 1",
        f"{_UNKNOWN}; small without being solved is a sign of over-training",
        _PAPER,
        "higher",
    ),
    Signal(
        "gradient_share",
        f"share of prompts whose answers do not all earn the same: those that GRPO learns from{_PROMPTS}",
        "share, 0 to 1",
        f"{_UNKNOWN}; the others cost rollouts and teach nothing",
        "DAPO filters the others, arXiv 2503.14476",
        "higher",
    ),
    Signal(
        "pass_floor",
        "p*(g) = 1 - 2^(-1/g): at this pass rate half of the groups of g answers have no pass",
        "share, 0 to 1; 0.083 at g = 8",
        "a constant of the group size",
        _TRIAGE,
        "none",
    ),
    Signal(
        "finished",
        f"share of answers that end within the tokens that they may have{_PROMPTS}",
        "share, 0 to 1",
        "near 1; else allow longer answers before you judge",
        "ours",
        "higher",
    ),
)

_LIKELIHOOD = (
    Signal(
        "entropy",
        "entropy of the next token at the sampling temperature, teacher-forced, mean over the calibration responses"
        f"{_EXAMPLES}",
        "nats, 0 to log(vocabulary)",
        "above 0.18, the level that is known for answers of the model's own",
        _TRIAGE,
        "higher",
    ),
    Signal(
        "entropy_ratio",
        f"entropy over that of the base on the same responses{_EXAMPLES}",
        "ratio, >= 0",
        f"{_UNKNOWN} before RL; within a run a drop by more than half is the alarm",
        _TRIAGE,
        "higher",
    ),
    Signal(
        "top1_mass",
        f"probability of the likeliest next token at the sampling temperature, teacher-forced{_EXAMPLES}",
        "probability, 1/vocabulary to 1",
        f"{_UNKNOWN}; near 1 nothing else is ever sampled",
        "max p",
        "lower",
    ),
    Signal(
        "entropy_gap",
        f"mean |H_sft - H_base| over the calibration responses{_EXAMPLES}",
        "nats, >= 0",
        f"{_UNKNOWN}; the positions where it is large are those that the neuron reset looks at",
        f"{_PAPER}, step 2",
        "lower",
    ),
    Signal(
        "nll",
        f"negative log-likelihood of the calibration responses at temperature 1{_EXAMPLES}",
        "nats a token, >= 0",
        f"{_UNKNOWN}; near 0 the model has these responses by heart",
        f"cross entropy, as SFT minimises it; near 0 as a sign: {_PAPER}",
        "none",
    ),
    Signal(
        "nll_rise",
        f"nll minus that of the base on the same responses{_EXAMPLES}",
        "nats a token",
        "below 0; above it on held-out data SFT has unlearned what it was to teach",
        "overfitting; as a signal before RL ours",
        "none",
    ),
    Signal(
        "calibration_error",
        "gap between confidence and accuracy of the next token, expected calibration error in 15 bins, as torchmetrics'"
        f" MulticlassCalibrationError{_EXAMPLES} (biased up, as the error itself is on few tokens)",
        "share, 0 to 1",
        f"{_UNKNOWN}; over-trained models are sure where they are wrong",
        "Guo et al., arXiv 1706.04599, Eq. 3",
        "lower",
    ),
)

_WEIGHTS = (
    Signal(
        "drift",
        "relative distance of the weights from the base, ||x - b|| / ||b||",
        "ratio, >= 0",
        f"{_UNKNOWN}; it grows along the ladder",
        _PAPER,
        "lower",
    ),
    Signal(
        "drift_spikes",
        "share of the squared distance from the base that the 1 % of weights that moved most have; of the tensors that "
        "changed",
        "share, 0.01 to 1",
        f"{_UNKNOWN}; 0.085 if changes are normally distributed, more if they are near the rounding of the files "
        "(drift_changed)",
        f"large and sparse drift as a sign: {_PAPER}; the measure is ours",
        "lower",
    ),
    Signal(
        "drift_changed",
        "share of the weights that differ from the base, of the tensors that changed",
        "share, 0 to 1",
        f"near 1 after training in float32; below {NEAR_ROUNDING:g} most changes are lost in the rounding to 16 bits, "
        "whatever the file has now, and drift_spikes is not judged",
        "ours",
        "none",
    ),
    Signal(
        "update_cosine",
        "cosine between the last step of the ladder and the one before; the base is the ladder's beginning",
        "cosine, -1 to 1",
        f"{_UNKNOWN}; near 1: still on its way, near 0: to and fro",
        "ours",
        "none",
    ),
)

_OF_CALIBRATION = f"of the mean NLL of the first {EXAMPLES} calibration responses"
_SHARPNESS = (
    Signal(
        "sharpness_sam",
        f"rise {_OF_CALIBRATION} at a distance of {RADIUS:g} along the gradient",
        "nats, >= 0",
        _UNKNOWN,
        "Foret et al., arXiv 2010.01412, Eq. 2",
        "lower",
    ),
    Signal(
        "critical_sharpness",
        f"2 over the smallest step along the negative gradient at which the loss rises, {_OF_CALIBRATION}",
        "1/step, > 0: as an eigenvalue of the Hessian",
        _UNKNOWN,
        "Kalra et al., arXiv 2601.16979",
        "lower",
    ),
    Signal(
        "hessian_top",
        f"largest eigenvalue of the Hessian {_OF_CALIBRATION}; with --hessian",
        "1/step, > 0",
        _UNKNOWN,
        "Lanczos' method, scipy.sparse.linalg.eigsh",
        "lower",
    ),
)


def _of_monitor(metric: Metric) -> Signal:
    name = metric.name.removeprefix("probe/")
    meaning, healthy = (
        text.replace("probe/", "").replace("probe set", "calibration data") for text in (metric.meaning, metric.healthy)
    )
    layered = name != "rank_rows_per_feature"
    return Signal(
        name,
        f"{meaning}{'; on the calibration data, median over layers' if layered else ''}",
        metric.unit,
        healthy,
        metric.source,
        "higher" if "_p0" in name else "none",
    )


_MONITORED = tuple(_of_monitor(metric) for monitor in (NeuronMonitor, RankMonitor) for metric in monitor.catalogue)

CATALOGUE = (*_ANSWERS, *_LIKELIHOOD, *_WEIGHTS, *_SHARPNESS, *_MONITORED)
NAMES = tuple(signal.name for signal in CATALOGUE)
