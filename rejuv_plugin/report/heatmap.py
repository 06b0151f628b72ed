# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where a reset set takes its neurons: a heat map of layers by modules."""

from pathlib import Path

from ..errors import InputError
from ..neurons.reset_set import ResetSet, grid, shares

# Beyond this many layers a number in every cell cannot be read.
_LAYERS_WITH_NUMBERS = 40


def draw(chosen: ResetSet, path: Path, key: str) -> None:
    """Write a PNG: a row for each layer, the first at the bottom, a column for each kind of module.

    Args:
        chosen: the set.
        path: where to; its directory is created.
        key: how errors name ``path``.

    Raises:
        InputError: named ``key``; matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError(
            key, "matplotlib, to draw", "an environment without it", "pip install 'rejuv-plugin[report]'"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    by_layer = grid(chosen)
    kinds = list(dict.fromkeys(kind for row in by_layer.values() for kind in row))
    values = [[100 * row.get(kind, float("nan")) for kind in kinds] for row in by_layer.values()]
    largest = max((v for row in values for v in row if v == v), default=0.0) or 1.0
    height = min(24.0, 2.2 + 0.34 * len(values))
    figure, axis = plt.subplots(figsize=(2.6 + 0.9 * len(kinds), height), dpi=120, layout="constrained")
    image = axis.imshow(values, origin="lower", aspect="auto", cmap="viridis", vmin=0.0, vmax=largest)
    axis.set_xticks(range(len(kinds)), kinds, rotation=30, ha="right")
    labels = [layer.rpartition(".")[2] for layer in by_layer]
    every = max(1, len(labels) // _LAYERS_WITH_NUMBERS)
    axis.set_yticks(range(0, len(labels), every), labels[::every])
    axis.set_ylabel("layer")
    whole = shares(chosen, dict.fromkeys(chosen.modules, "all"))["all"]
    axis.set_title(f"{chosen.model_type}: {whole:.1%} of neurons reset", fontsize=11)
    if len(values) <= _LAYERS_WITH_NUMBERS:
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                if value == value:
                    dark = value < 0.6 * largest
                    axis.text(x, y, f"{value:.1f}", ha="center", va="center", color="w" if dark else "k", fontsize=8)
    figure.colorbar(image, ax=axis, label="share of the module's neurons, %")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
