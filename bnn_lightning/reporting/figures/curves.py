"""The figure of learning curves: accuracy and NLL against the number of labels."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_lightning.reporting.figures.labels import as_drawn
from bnn_lightning.reporting.figures.png import save

_COLOURS = ("#3c6fb0", "#e08a3c", "#4c9a5b", "#b5478b", "#8a6d3b", "#5bb3c4", "#c94f4f", "#7d6bc0")
_BASELINE = "#777777"


class Curve(NamedTuple):
    """The runs of one cell: their accuracies in percent and NLLs at each number of labels.

    Curves of the same name have one colour; those of the same ``row`` are drawn together, in a row of the figure.
    """

    name: str
    labels: Sequence[int]
    accuracies: Sequence[Sequence[float]]
    nlls: Sequence[Sequence[float]]
    row: str = ""


def learning_curves(path: Path, curves: Sequence[Curve], title: str) -> None:
    """Draws the median of the runs of each cell, and a band from the lowest to the highest.

    Args:
        path: the PNG to write.
        curves: one for each cell; a name that begins with random is drawn in grey.
        title: of the figure.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    rows = list(dict.fromkeys(curve.row for curve in curves))
    others = dict.fromkeys(curve.name for curve in curves if not _is_baseline(curve))
    colours = dict(zip(others, _COLOURS * len(others), strict=False))
    figure = Figure(figsize=(9.6, 0.9 + 3.2 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False)
    for row, (left, right) in zip(rows, axes, strict=True):
        drawn = [curve for curve in curves if curve.row == row]
        for curve in drawn:
            _draw(curve, left, right, colours.get(curve.name, _BASELINE))
        _label(drawn, left, right)
        if row:
            left.set_title(as_drawn(row), fontsize=9, loc="left")
    entries = {label: line for left, _ in axes for line, label in zip(*left.get_legend_handles_labels(), strict=True)}
    figure.suptitle(as_drawn(title), fontsize=10)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=min(6, len(entries)),
        fontsize=8,
        frameon=False,
        title="median; the band is from the lowest to the highest run" if len(curves[0].nlls[0]) > 1 else None,
        title_fontsize=8,
    )
    save(figure, path)


def _is_baseline(curve: Curve) -> bool:
    return curve.name.lower().startswith("random")


def _draw(curve: Curve, left: Axes, right: Axes, colour: str) -> None:
    for axis, values in ((left, curve.accuracies), (right, curve.nlls)):
        medians = [statistics.median(each) for each in values]
        line = "--" if _is_baseline(curve) else "-"
        axis.plot(curve.labels, medians, line, color=colour, lw=1.6, label=as_drawn(curve.name))
        if len(values[0]) > 1:
            lowest, highest = [min(each) for each in values], [max(each) for each in values]
            axis.fill_between(curve.labels, lowest, highest, color=colour, alpha=0.13, lw=0)


def _label(curves: Sequence[Curve], left: Axes, right: Axes) -> None:
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
