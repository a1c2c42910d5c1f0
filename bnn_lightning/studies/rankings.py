"""Ranks of the cells by several columns, and the rank correlation of each ranking with the published one."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torchmetrics.functional import kendall_rank_corrcoef

from bnn_lightning.studies.base import Study
from bnn_lightning.studies.columns import heading, lower_is_better
from bnn_lightning.studies.lines import Line


def rankings(study: Study, lines: Sequence[Line]) -> list[list[str]]:
    """A table with the rank of each cell that has been run, by the published values and by each column to rank by.

    The rows below the cells give Kendall's tau of each of our rankings with each published one. Returns an empty list
    where there is nothing to rank.
    """
    names = [line.cell.name for line in lines if line.runs]
    if not (study.rankings and names):
        return []
    published = {column: _published(study, column, names) for column in study.published}
    measured = {column: _means(column, lines) for column in study.rankings}
    ranks = [_ranks(values) for values in (*published.values(), *measured.values())]
    axes = {line.cell.name: [line.cell.axes.get(axis, "") for axis in study.axes] for line in lines}
    names.sort(key=lambda name: [by_name.get(name, math.inf) for by_name in ranks])
    heads = [*(f"published {heading(column)[0]}" for column in published), *(heading(column)[0] for column in measured)]
    body = [axes[name] + [str(by_name.get(name, "")) for by_name in ranks] for name in names]
    for column, published_values in published.items():
        title = [f"Kendall's tau with the published {heading(column)[0]}", *[""] * (len(study.axes) - 1)]
        taus = [kendall(values, published_values) for values in measured.values()]
        body.append([*title, *[""] * len(published), *("" if math.isnan(tau) else f"{tau:+.2f}" for tau in taus)])
    return [[*study.axes, *heads], *body]


def kendall(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Kendall's tau b over the names that both have: 1 for the same order, -1 for the opposite one.

    It is nan for less than two names, or where all values are equal.
    """
    names = sorted(first.keys() & second.keys())
    if len(names) < 2:
        return math.nan
    x, y = (torch.tensor([values[name] for name in names], dtype=torch.float64) for values in (first, second))
    tau: Any = kendall_rank_corrcoef(x, y, variant="b")
    return float(tau)


def _means(column: str, lines: Sequence[Line]) -> dict[str, float]:
    return {
        line.cell.name: _sign(column) * statistics.mean(values) for line in lines if (values := line.values(column))
    }


def _published(study: Study, column: str, names: Sequence[str]) -> dict[str, float]:
    """The published values of those cells that have been run, so that all rankings are of the same cells."""
    return {name: _sign(column) * value for name, value in study.published[column].items() if name in names}


def _sign(column: str) -> int:
    """-1 for columns where a lower value is better, otherwise 1."""
    return -1 if lower_is_better(column) else 1


def _ranks(values: Mapping[str, float]) -> dict[str, int]:
    """The rank of each name; 1 is the highest value, and equal values share the better rank."""
    return {name: 1 + sum(other > value for other in values.values()) for name, value in values.items()}
