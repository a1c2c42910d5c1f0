"""The figure of what the cells of a study cost, and of what that buys."""

import math
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

_CORNERS = ((4.0, 3.0), (4.0, -9.0), (-11.0, 3.0), (-11.0, -9.0))  # of a dot, in points
_ENOUGH = 10.0  # points to the next


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
    """Draws every cell at its cost and its quality, from the lowest to the highest run, with a number.

    The names of the numbers are at the margin, from top to bottom as in the figure.

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
    ordered = sorted(cells, key=lambda cell: -cell.mean)
    places = axis.transData.transform([(cell.cost, cell.mean) for cell in ordered]) * 72 / axis.figure.dpi
    for number, (cell, beside) in enumerate(
        zip(ordered, _beside([(x, y) for x, y in places.tolist()]), strict=True), 1
    ):
        axis.annotate(str(number), (cell.cost, cell.mean), beside, textcoords="offset points", fontsize=6.5)
    names = "\n".join(f"{number:>2}  {as_drawn(cell.name)}" for number, cell in enumerate(ordered, 1))
    axis.text(1.02, 0.5, names, transform=axis.transAxes, fontsize=7, va="center", linespacing=1.35, family="monospace")


def _beside(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where the number of each dot stands, from the dot: away from other dots and the numbers before it; in points."""
    taken, offsets = list(places), []
    for x, y in places:
        others = [other for other in taken if other != (x, y)]
        room = {
            (dx, dy): min((math.dist((x + dx, y + dy), other) for other in others), default=_ENOUGH)
            for dx, dy in _CORNERS
        }
        offset = next((corner for corner in _CORNERS if room[corner] >= _ENOUGH), max(_CORNERS, key=room.__getitem__))
        offsets.append(offset)
        taken.append((x + offset[0], y + offset[1]))
    return offsets
