"""The cells of a study beside each other."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from bnn_lightning.figures.png import save

_OURS, _THEIRS = "#3c6fb0", "#e08a3c"


def compare(
    path: Path,
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    published: Sequence[float | None],
    label: str,
    title: str,
) -> None:
    """A line for each cell: a dot for each seed, a bar at their mean, a diamond at the published figure.

    Args:
        path: the PNG to write.
        names: of the cells.
        values: of each cell, one a seed.
        published: a figure for each cell, or None.
        label: what the values are.
        title: of the figure.
    """
    figure = Figure(figsize=(7.5, 0.9 + 0.26 * len(names)), layout="constrained")
    axis = figure.subplots()
    places = range(len(names))
    for place, mine in zip(places, values, strict=True):
        axis.plot(mine, [place] * len(mine), "o", color=_OURS, alpha=0.55, markersize=4, linewidth=0)
        axis.plot([statistics.mean(mine)] * 2, [place - 0.3, place + 0.3], color=_OURS, linewidth=2)
    theirs = [(value, place) for value, place in zip(published, places, strict=True) if value is not None]
    if theirs:
        axis.plot(*zip(*theirs, strict=True), "D", color=_THEIRS, markersize=5, markerfacecolor="none", linewidth=0)
        handles = [
            axis.plot([], [], "o", color=_OURS, label="ours: seeds, mean")[0],
            axis.plot([], [], "D", color=_THEIRS, markerfacecolor="none", label="published")[0],
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    axis.set_yticks(places, names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(label, fontsize=9)
    axis.set_title(title, fontsize=10)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    save(figure, path)
