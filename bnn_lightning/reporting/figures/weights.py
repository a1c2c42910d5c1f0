"""What is left of a network: kept weights over the input of a layer, accuracy against removed weights."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bnn_lightning.reporting.figures.png import save


def kept_weights(path: Path, mask: Tensor, maps: tuple[int, int, int], title: str) -> None:
    """How many weights of a linear layer are kept for each pixel of its input.

    Args:
        path: the PNG to write.
        mask: ``(units, features)``, true where a weight is kept.
        maps: channels, height and width of the images that were flattened into the features.
        title: of the figure.
    """
    channels, height, width = maps
    counts = mask.sum(0).view(channels, height, width).cpu()
    columns = math.ceil(math.sqrt(channels))
    rows = math.ceil(channels / columns)
    # One picture of all channels side by side, with an empty line of pixels between them.
    gap = 0 if channels == 1 else 1
    tiled = torch.full((rows * (height + gap) - gap, columns * (width + gap) - gap), math.nan)
    for channel in range(channels):
        top, left = channel // columns * (height + gap), channel % columns * (width + gap)
        tiled[top : top + height, left : left + width] = counts[channel]
    figure = Figure(figsize=(6.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(tiled, cmap="viridis", vmin=0)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=11)
    figure.colorbar(shown, ax=axes, label=f"weights kept of {len(mask):,}")
    save(figure, path)


def pruning_curve(path: Path, removed: Sequence[float], accuracy: Sequence[float], title: str) -> None:
    """Accuracy against the share of weights removed, both from 0 to 1; the share on the scale of what is left."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    left = [1 - share for share in removed]
    axes.plot(left, [100 * value for value in accuracy], marker="o")
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xticks(left, [f"{100 * share:.3g} %" for share in removed], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel("weights removed, lowest |mu| / sigma first")
    axes.set_ylabel("test accuracy, %")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    save(figure, path)
