# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The largest eigenvalue of the loss's Hessian, by Lanczos' method from SciPy over exact Hessian-vector products."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import InputError
from ..probe.dialogue import Example
from .calibration_pass import differentiable, summed_nll

_TOLERANCE = 1e-3
_VECTORS = 12
"""Lanczos vectors, each as large as the model, in float32, in the host's memory."""
_RESTARTS = 30


def top_eigenvalue(
    model: Any, examples: Sequence[Example], seed: int, tick: Callable[[int, int], None]
) -> float | None:
    """Of the Hessian of the mean NLL over all response tokens, with respect to all parameters.

    Its relative error is about 0.001. Needs memory for the graph of a double backward pass over one example, whose
    logits are not cut up.

    Args:
        model: from `load.load_model`; its parameters ask for gradients inside.
        examples: with targets.
        seed: of Lanczos' first vector.
        tick: called with the number of Hessian-vector products done, and about the most there can be: all that were
            needed, mostly fewer, at the end.

    Returns:
        None if the iteration does not converge.

    Raises:
        InputError: named ``--hessian``; no SciPy.
    """
    try:
        from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
    except ImportError:
        raise InputError(
            "--hessian", "scipy, for Lanczos' method", "an environment without it", "pip install 'rejuv-plugin[report]'"
        ) from None
    parameters = list(model.parameters())
    size, done = sum(p.numel() for p in parameters), 0
    vectors = min(_VECTORS, size)
    # Where one eigenvalue is wanted, ARPACK's restarts keep half of the vectors and make the others anew.
    most = 1 + vectors + _RESTARTS * (vectors // 2)
    tick(0, most)

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal done
        flat = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float32).reshape(-1)).to(model.device)
        parts = [
            part.view_as(p) for part, p in zip(flat.split([p.numel() for p in parameters]), parameters, strict=True)
        ]
        found = _hessian_times(model, examples, parameters, parts)
        done += 1
        tick(done, max(done, most))
        return torch.cat([part.reshape(-1) for part in found]).cpu().numpy()

    start = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float32)
    options = {"ncv": vectors, "maxiter": _RESTARTS, "tol": _TOLERANCE, "v0": start}
    try:
        with differentiable(model):
            value = float(eigsh(operator, k=1, which="LA", return_eigenvectors=False, **options)[0])
    except ArpackNoConvergence:
        value = None
    tick(done, done)
    return value


def _hessian_times(
    model: Any, examples: Sequence[Example], parameters: Sequence[Tensor], vector: Sequence[Tensor]
) -> list[Tensor]:
    total = [torch.zeros_like(p) for p in parameters]
    scale = 1 / sum(len(example.targets) for example in examples)
    # The fast kernels of attention have no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        for example in examples:
            loss = summed_nll(model, example) * scale
            first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True)
            along = torch.stack([(g * v).sum() for g, v in zip(first, vector, strict=True)]).sum()
            if not along.requires_grad:
                continue
            second = torch.autograd.grad(along, parameters, allow_unused=True, materialize_grads=True)
            for sum_, part in zip(total, second, strict=True):
                sum_ += part
    return total
