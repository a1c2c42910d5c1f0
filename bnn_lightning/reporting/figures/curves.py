"""The figure of learning curves: accuracy and NLL against the number of labels."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from bnn_lightning.reporting.figures.labels import as_drawn
from bnn_lightning.reporting.figures.png import save

_COLOURS = ("#3c6fb0", "#e08a3c", "#4c9a5b", "#b5478b", "#8a6d3b", "#5bb3c4", "#c94f4f", "#7d6bc0")
_BASELINE = "#777777"


class Curve(NamedTuple):
    """The runs of one cell: their accuracies in percent and NLLs at each number of labels."""

    name: str
    labels: Sequence[int]
    accuracies: Sequence[Sequence[float]]
    nlls: Sequence[Sequence[float]]


def learning_curves(path: Path, curves: Sequence[Curve], title: str) -> None:
    """Draws the median of the runs of each cell, and a band from the lowest to the highest.

    Args:
        path: the PNG to write.
        curves: one for each cell; a name that begins with random is drawn in grey.
        title: of the figure.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    figure = Figure(figsize=(9.6, 4.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = iter(_COLOURS * len(curves))
    for curve in curves:
        baseline = curve.name.lower().startswith("random")
        colour = _BASELINE if baseline else next(colours)
        for axis, values in ((left, curve.accuracies), (right, curve.nlls)):
            medians = [statistics.median(each) for each in values]
            line = "--" if baseline else "-"
            axis.plot(curve.labels, medians, line, color=colour, lw=1.6, label=as_drawn(curve.name))
            if len(values[0]) > 1:
                lowest, highest = [min(each) for each in values], [max(each) for each in values]
                axis.fill_between(curve.labels, lowest, highest, color=colour, alpha=0.13, lw=0)
    highest_accuracy = max(max(each) for curve in curves for each in curve.accuracies)
    left.set_ylim(
        bottom=min(90.0, min(statistics.median(curve.accuracies[0]) for curve in curves)), top=highest_accuracy + 1
    )
    for level in (90, 95):
        if level < highest_accuracy:
            left.axhline(level, color="#bbbbbb", lw=0.8, zorder=0)
    right.set_yscale("log")
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter("{x:g}")
    for axis, label in ((left, "accuracy, %"), (right, "NLL, nats")):
        axis.set_xlabel("labels", fontsize=9)
        axis.set_ylabel(label, fontsize=9)
        axis.tick_params(which="both", labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(as_drawn(title), fontsize=10)
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(4, len(curves)),
        fontsize=8,
        frameon=False,
        title="median; the band is from the lowest to the highest run" if len(curves[0].nlls[0]) > 1 else None,
        title_fontsize=8,
    )
    save(figure, path)
