"""The figure of a confusion matrix, for two classes or hundreds."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from bnn_lightning.reporting.figures.labels import short
from bnn_lightning.reporting.figures.png import save

_ANNOTATED = 20  # classes up to which cells have numbers in them
_NAMED = 50  # classes up to which every row has a name; of more, every second, third, ...


def confusion_matrix(path: Path, confusion: Tensor, classes: Sequence[str]) -> None:
    """Draws a confusion matrix: the share of each class's images that was predicted as each class, and their numbers.

    Args:
        path: the PNG to write.
        confusion: ``(classes, classes)``, labels by rows; rows without images are left grey.
        classes: their names.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    count = len(classes)
    images = confusion.sum(1, keepdim=True)
    shares = confusion / images  # nan without images
    side = min(16.0, 3.6 + 0.42 * count)
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axis = figure.add_subplot()
    axis.set_facecolor("#d0d0d0")
    # By their square roots, so that rare mistakes show too.
    drawn = axis.imshow(shares.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    named = range(0, count, -(-count // _NAMED))
    size = max(6.5, min(9.0, 320 / count))
    labels = [short(classes[label], 18) for label in named]
    upright = max(map(len, labels)) <= 3 and count <= 30
    axis.set_xticks(named, labels, fontsize=size, rotation=0 if upright else 90)
    axis.set_yticks(named, labels, fontsize=size)
    axis.set(xlabel="predicted class", ylabel="label")
    if count <= _ANNOTATED:
        for row, column in torch.cartesian_prod(torch.arange(count), torch.arange(count)).tolist():
            number = int(confusion[row, column])
            if number:
                colour = "white" if shares[row, column] > 0.35 else "black"
                axis.text(column, row, f"{number:,}", ha="center", va="center", fontsize=size, color=colour)
    recall = shares.diagonal().nanmean()
    axis.set_title(f"Share of each class's images; balanced accuracy {100 * recall:.1f} %", fontsize=10)
    figure.colorbar(drawn, ax=axis, label="share of the row", shrink=0.8)
    save(figure, path)
