"""The places of cells by several columns, and how far each order is the published one."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torchmetrics.functional import kendall_rank_corrcoef

from bnn_lightning.studies.base import Study
from bnn_lightning.studies.columns import LOWER_IS_BETTER, heading, key_of_column
from bnn_lightning.studies.lines import Line


def rankings(study: Study, lines: Sequence[Line]) -> list[list[str]]:
    """A table with the place of each cell that has been run, by what is published and by each column to rank by.

    Under them stands Kendall's tau of each order of ours with each published one. Empty where nothing is to rank.
    """
    names = [line.cell.name for line in lines if line.found]
    if not (study.rankings and names):
        return []
    theirs = {column: _published(study, column, names) for column in study.published}
    ours = {column: _means(column, lines) for column in study.rankings}
    places = [_places(values) for values in (*theirs.values(), *ours.values())]
    axes = {line.cell.name: [line.cell.axes.get(axis, "") for axis in study.axes] for line in lines}
    names.sort(key=lambda name: [place.get(name, math.inf) for place in places])
    heads = [*(f"published {heading(column)[0]}" for column in theirs), *(heading(column)[0] for column in ours)]
    body = [axes[name] + [str(place.get(name, "")) for place in places] for name in names]
    for of, published in theirs.items():
        title = [f"Kendall's tau with the published {heading(of)[0]}", *[""] * (len(study.axes) - 1)]
        taus = [kendall(values, published) for values in ours.values()]
        body.append([*title, *[""] * len(theirs), *("" if math.isnan(tau) else f"{tau:+.2f}" for tau in taus)])
    return [[*study.axes, *heads], *body]


def kendall(some: Mapping[str, float], others: Mapping[str, float]) -> float:
    """Kendall's tau b of the names that both have: 1 in the same order, -1 in the opposite one; nan of ties alone."""
    names = sorted(some.keys() & others.keys())
    if len(names) < 2:
        return math.nan
    mine, theirs = (torch.tensor([found[name] for name in names], dtype=torch.float64) for found in (some, others))
    tau: Any = kendall_rank_corrcoef(mine, theirs, variant="b")
    return float(tau)


def _means(column: str, lines: Sequence[Line]) -> dict[str, float]:
    return {
        line.cell.name: _sign(column) * statistics.mean(values) for line in lines if (values := line.values(column))
    }


def _published(study: Study, column: str, names: Sequence[str]) -> dict[str, float]:
    """What was published of the cells that have been run, so that all orders are of the same ones."""
    return {name: _sign(column) * figure for name, figure in study.published[column].items() if name in names}


def _sign(column: str) -> int:
    """What makes a higher number the better one."""
    return -1 if key_of_column(column).endswith(LOWER_IS_BETTER) else 1


def _places(values: Mapping[str, float]) -> dict[str, int]:
    """1 is the best; equal values share the better place."""
    return {name: 1 + sum(other > value for other in values.values()) for name, value in values.items()}
