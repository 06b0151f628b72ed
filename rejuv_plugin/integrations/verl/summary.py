# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a job's log and metrics say of its start."""

from dataclasses import dataclass
from typing import Any

from ...report.apply import alpha_in_words, unrelated
from .job import Job


@dataclass(frozen=True)
class Summary:
    """Of one rejuvenation."""

    job: Job
    manifest: dict[str, Any]
    """See `checkpoint.provenance.manifest`."""
    how: str
    """How the weights came about, in a line."""
    entropy: dict[str, float]
    """Mean token entropy in nats on the calibration data, of ``base``, ``sft`` and ``start``, as far as measured."""

    @property
    def metrics(self) -> dict[str, float]:
        """Under verl's metric names; what is not finite is left out."""
        drift = self.manifest["drift_from_base"]
        metrics = {
            "training/rejuvenation/alpha": self.job.settings.fusion.alpha,
            "training/rejuvenation/fused_parameters": self.manifest["parameters_fused"],
            "training/rejuvenation/drift_sft": drift["sft"]["relative_l2"],
            "training/rejuvenation/drift_start": drift["output"]["relative_l2"],
        }
        if reset := self.manifest.get("reset"):
            metrics |= {
                "training/rejuvenation/omega": reset["omega"],
                "training/rejuvenation/reset_share": reset["share"],
                "training/rejuvenation/reset_neurons": reset["neurons"],
            }
        metrics |= {f"training/rejuvenation/entropy_{side}": value for side, value in self.entropy.items()}
        return {name: float(value) for name, value in metrics.items() if value is not None}

    def print(self, *, has_reference: bool) -> None:
        """Print it, a few lines."""
        settings, manifest = self.job.settings, self.manifest
        drift, reset = manifest["drift_from_base"], manifest.get("reset")
        reference = settings.ref if has_reference else "none in this job"
        lines = [
            f"rejuvenation: {self.how}",
            f"fusion alpha {alpha_in_words(manifest)} of {self.job.sft_path} with {settings.base_path}, "
            f"{manifest['parameters_fused']:,} parameters",
        ]
        if reset:
            lines.append(f"reset of {reset['neurons']:,} neurons ({reset['share']:.2%}), omega {reset['omega']:g}")
        if self.entropy:
            names = {"base": "base", "sft": "SFT", "start": "start of RL"}
            sides = ", ".join(
                f"{self.entropy[side]:.3f} {name}" for side, name in names.items() if side in self.entropy
            )
            lines.append(f"token entropy on the calibration data (nats): {sides}")
        lines += [
            f"drift of the fused tensors from base (relative L2): SFT {_shown(drift['sft'])}, "
            f"start of RL {_shown(drift['output'])}",
            f"KL reference: {reference}; critic: {'rejuvenated' if settings.critic else 'its own path'}",
        ]
        if warning := unrelated(drift["sft"]["relative_l2"]):
            lines.append(f"WARNING: {warning}")
        print("\n  ".join(lines), flush=True)


def _shown(drift: dict[str, Any]) -> str:
    value = drift["relative_l2"]
    return "not finite" if value is None else f"{value:.4g}"
