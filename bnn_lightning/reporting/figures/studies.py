"""The cells of a study beside each other."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_lightning.reporting.figures.png import save

_OURS, _THEIRS, _BAND = "#3c6fb0", "#e08a3c", "#f3f3f3"


class Dot(NamedTuple):
    """One run: its value, and whether its posterior has converged."""

    value: float
    converged: bool


class Panel(NamedTuple):
    """A column of the figure: what the values are, the runs of each cell, and figures published for some cells."""

    label: str
    dots: Sequence[Sequence[Dot]]
    published: Mapping[int, float]


def compare(path: Path, names: Sequence[str], groups: Sequence[str], panels: Sequence[Panel], title: str) -> None:
    """A line for each cell: a dot for each seed, a bar at their mean, a diamond at the published figure.

    Args:
        path: the PNG to write.
        names: of the cells.
        groups: of each cell; a group stands on one band of grey or white.
        panels: side by side.
        title: of the figure.
    """
    figure = Figure(figsize=(6.2 + 3 * (len(panels) - 1), 1.1 + 0.26 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw(axis, panel, groups)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(title, fontsize=10)
    handles = _legend(axes[0], panels)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    save(figure, path)


def _draw(axis: Axes, panel: Panel, groups: Sequence[str]) -> None:
    bands = list(dict.fromkeys(groups))
    for place, (group, dots) in enumerate(zip(groups, panel.dots, strict=True)):
        if bands.index(group) % 2 and len(bands) < len(groups):
            axis.axhspan(place - 0.5, place + 0.5, color=_BAND, zorder=0, linewidth=0)
        for dot in dots:
            face = _OURS if dot.converged else "white"
            axis.plot(dot.value, place, "o", color=_OURS, markerfacecolor=face, alpha=0.7, markersize=4.5)
        if len(dots) > 1:
            axis.plot([statistics.mean(dot.value for dot in dots)] * 2, [place - 0.3, place + 0.3], color=_OURS, lw=2)
    for place, figure in panel.published.items():
        axis.plot(figure, place, "D", color=_THEIRS, markersize=5, markerfacecolor="none")
    if min((dot.value for dots in panel.dots for dot in dots), default=0) < -10:
        axis.set_xscale("symlog", linthresh=1)  # a few that are far off would hide what tells the others apart
        axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel(panel.label, fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(axis: Axes, panels: Sequence[Panel]) -> list[object]:
    """What needs to be told apart in these panels."""
    runs = [dots for panel in panels for dots in panel.dots]
    handles = []
    if any(panel.published for panel in panels):
        handles.append(axis.plot([], [], "D", color=_THEIRS, markerfacecolor="none", lw=0, label="published")[0])
    if handles or any(len(dots) > 1 for dots in runs):
        handles.insert(0, axis.plot([], [], "o-", color=_OURS, lw=0, label="ours, a dot a seed")[0])
    if any(not dot.converged for dots in runs for dot in dots):
        label = "posterior not converged"
        handles.append(axis.plot([], [], "o", color=_OURS, markerfacecolor="white", lw=0, label=label)[0])
    return list(handles)
