"""The figure that compares the cells of a study."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_lightning.reporting.figures.labels import as_drawn
from bnn_lightning.reporting.figures.png import save

OURS = "#3c6fb0"
"""The colour of what was measured here."""
_THEIRS, _BAND = "#e08a3c", "#f3f3f3"


class Dot(NamedTuple):
    """One run: its value, and whether its posterior has converged."""

    value: float
    converged: bool


class Panel(NamedTuple):
    """A column of the figure: its axis label, the runs of each cell, and published values by the index of the cell."""

    label: str
    dots: Sequence[Sequence[Dot]]
    published: Mapping[int, float]


def compare(path: Path, names: Sequence[str], groups: Sequence[str], panels: Sequence[Panel], title: str) -> None:
    """Draws a line for each cell: a dot for each seed, a bar at their mean, a diamond at the published value.

    Args:
        path: the PNG to write.
        names: of the cells.
        groups: the name of each cell's group; groups are told apart by a white or grey background.
        panels: the columns of the figure, from left to right.
        title: of the figure.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    figure = Figure(figsize=(6.2 + 3 * (len(panels) - 1), 1.1 + 0.26 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw(axis, panel, groups)
    axes[0].set_yticks(range(len(names)), [as_drawn(name) for name in names], fontsize=8)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(as_drawn(title), fontsize=10)
    handles = _legend(axes[0], panels)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    save(figure, path)


def _draw(axis: Axes, panel: Panel, groups: Sequence[str]) -> None:
    distinct = list(dict.fromkeys(groups))
    for row, (group, dots) in enumerate(zip(groups, panel.dots, strict=True)):
        if distinct.index(group) % 2 and len(distinct) < len(groups):
            axis.axhspan(row - 0.5, row + 0.5, color=_BAND, zorder=0, linewidth=0)
        for dot in dots:
            face = OURS if dot.converged else "white"
            axis.plot(dot.value, row, "o", color=OURS, markerfacecolor=face, alpha=0.7, markersize=4.5)
        if len(dots) > 1:
            axis.plot([statistics.mean(dot.value for dot in dots)] * 2, [row - 0.3, row + 0.3], color=OURS, lw=2)
    for row, value in panel.published.items():
        axis.plot(value, row, "D", color=_THEIRS, markersize=5, markerfacecolor="none")
    if min((dot.value for dots in panel.dots for dot in dots), default=0) < -10:
        axis.set_xscale("symlog", linthresh=1)  # a few outliers would hide the differences between the others
        axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel(as_drawn(panel.label), fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(axis: Axes, panels: Sequence[Panel]) -> list[object]:
    """Legend entries for the kinds of marks that these panels have."""
    cells = [dots for panel in panels for dots in panel.dots]
    handles = []
    if any(panel.published for panel in panels):
        handles.append(axis.plot([], [], "D", color=_THEIRS, markerfacecolor="none", lw=0, label="published")[0])
    if handles or any(len(dots) > 1 for dots in cells):
        handles.insert(0, axis.plot([], [], "o-", color=OURS, lw=0, label="ours, a dot a seed")[0])
    if any(not dot.converged for dots in cells for dot in dots):
        label = "posterior not converged"
        handles.append(axis.plot([], [], "o", color=OURS, markerfacecolor="white", lw=0, label=label)[0])
    return list(handles)
