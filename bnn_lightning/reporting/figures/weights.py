"""Figures of pruning: the kept weights of a layer, accuracy against the share of removed weights."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bnn_lightning.reporting.figures.labels import as_drawn
from bnn_lightning.reporting.figures.png import save


def kept_weights(path: Path, mask: Tensor, maps: tuple[int, int, int], title: str) -> None:
    """Draws how many weights of a linear layer are kept for each pixel of its input.

    Args:
        path: the PNG to write.
        mask: ``(units, features)``, true where a weight is kept.
        maps: channels, height and width of the images or feature maps that were flattened into the features.
        title: of the figure.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    channels, height, width = maps
    counts = mask.sum(0).view(channels, height, width).cpu()
    columns = math.ceil(math.sqrt(channels))
    rows = math.ceil(channels / columns)
    # One picture with all channels side by side, separated by an empty line of pixels.
    gap = 0 if channels == 1 else 1
    tiled = torch.full((rows * (height + gap) - gap, columns * (width + gap) - gap), math.nan)
    for channel in range(channels):
        top, left = channel // columns * (height + gap), channel % columns * (width + gap)
        tiled[top : top + height, left : left + width] = counts[channel]
    figure = Figure(figsize=(6.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    heatmap = axes.imshow(tiled, cmap="viridis", vmin=0)
    axes.set(xticks=[], yticks=[])
    axes.set_title(as_drawn(title), fontsize=11)
    figure.colorbar(heatmap, ax=axes, label=f"weights kept of {len(mask):,}")
    save(figure, path)


def pruning_curve(path: Path, removed: Sequence[float], accuracy: Sequence[float], title: str) -> None:
    """Draws accuracy against the share of removed weights, on a logarithmic scale of the weights that remain.

    Args:
        path: the PNG to write.
        removed: shares of removed weights, from 0 to below 1.
        accuracy: of the pruned network at each share, from 0 to 1.
        title: of the figure.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    remaining = [1 - share for share in removed]
    axes.plot(remaining, [100 * value for value in accuracy], marker="o")
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xticks(remaining, [f"{100 * share:.3g} %" for share in removed], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel("weights removed, lowest |mu| / sigma first")
    axes.set_ylabel("test accuracy, %")
    axes.set_title(as_drawn(title), fontsize=11)
    axes.grid(alpha=0.3)
    save(figure, path)
