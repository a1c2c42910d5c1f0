"""The figure of what the cells of a study cost, and of what that buys."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bnn_lightning.reporting.figures.labels import as_drawn
from bnn_lightning.reporting.figures.png import save
from bnn_lightning.reporting.figures.studies import OURS, Dot

_GREY = "#9a9a9a"
_ROOM = 1.25  # labels that would fit into the height, for each that there is


class Priced(NamedTuple):
    """A cell: its name, its mean cost, and its runs."""

    name: str
    cost: float
    dots: Sequence[Dot]

    @property
    def mean(self) -> float:
        return statistics.mean(dot.value for dot in self.dots)


def quality_against_cost(
    path: Path, panels: Mapping[str, Sequence[Priced]], cost: str, quality: str, title: str
) -> None:
    """Draws every cell at its cost and its quality, from the lowest to the highest run, with its name at the margin.

    Args:
        path: the PNG to write.
        panels: cells by the title of their panel, from left to right.
        cost: label of the horizontal axis, which is logarithmic.
        quality: label of the vertical axis.
        title: of the figure.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    most = max(len(cells) for cells in panels.values())
    figure = Figure(figsize=(6.4 * len(panels), max(3.5, 1.2 + 0.2 * most)), layout="constrained")
    for axis, (name, cells) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _draw(axis, cells)
        axis.set_title(as_drawn(name), fontsize=9)
        axis.set_xlabel(as_drawn(cost), fontsize=9)
        axis.set_ylabel(as_drawn(quality), fontsize=9)
    figure.suptitle(as_drawn(title), fontsize=10)
    if any(not dot.converged for cells in panels.values() for cell in cells for dot in cell.dots):
        hollow = figure.axes[0].plot([], [], "o", color=OURS, markerfacecolor="white", lw=0)[0]
        figure.legend([hollow], ["posterior not converged"], loc="outside lower center", fontsize=8, frameon=False)
    save(figure, path)


def _draw(axis: Axes, cells: Sequence[Priced]) -> None:
    axis.set_xscale("log")
    values = [dot.value for cell in cells for dot in cell.dots]
    if min(values) > 0 and max(values) > 4 * min(values):
        axis.set_yscale("log")
    for cell in cells:
        face = OURS if all(dot.converged for dot in cell.dots) else "white"
        ends = (min(dot.value for dot in cell.dots), max(dot.value for dot in cell.dots))
        axis.plot([cell.cost] * 2, ends, color=OURS, lw=1.2)
        axis.plot(cell.cost, cell.mean, "o", color=OURS, markerfacecolor=face, markersize=5)
    for scale in (axis.xaxis, axis.yaxis):
        if scale.get_scale() == "log":
            scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
            scale.set_minor_formatter(NullFormatter())
        scale.set_major_formatter("{x:g}")
    axis.tick_params(which="both", labelsize=7)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.autoscale_view()
    to_axes = axis.transData + axis.transAxes.inverted()
    ordered = sorted(cells, key=lambda cell: cell.mean)
    heights = _apart([float(to_axes.transform((cell.cost, cell.mean))[1]) for cell in ordered])
    for cell, height in zip(ordered, heights, strict=True):
        axis.annotate(
            as_drawn(cell.name),
            (cell.cost, cell.mean),
            (1.03, height),
            textcoords="axes fraction",
            fontsize=7,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": _GREY, "lw": 0.5, "shrinkA": 0, "shrinkB": 3},
        )


def _apart(heights: Sequence[float]) -> list[float]:
    """Rising heights from 0 to 1, moved so that none is too near to the next."""
    gap = 1 / (_ROOM * max(1, len(heights) - 1)) if len(heights) > 1 else 0.0
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else max(0.0, height))
    limit = 1.0
    for place in reversed(range(len(moved))):
        moved[place] = limit = min(moved[place], limit)
        limit -= gap
    return moved
