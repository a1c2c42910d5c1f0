"""Cells in the order of a column, and how far that is the published order."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torchmetrics.functional import kendall_rank_corrcoef

from bnn_lightning.studies.base import Study
from bnn_lightning.studies.columns import LOWER_IS_BETTER, heading, key_of_column
from bnn_lightning.studies.lines import Line


def rankings(study: Study, lines: Sequence[Line]) -> list[str]:
    """A sentence for each column that the study ranks its cells by, and one for each that is published."""
    theirs = {column: _published(study, column, lines) for column in study.published}
    told = []
    for column in study.rankings:
        ours = _means(column, lines)
        agreement = []
        for of, figures in theirs.items():
            if len(ours.keys() & figures.keys()) > 1:
                tau = kendall(_better(ours, column), _better(figures, of))
                agreement.append(f"Kendall's tau with the published {heading(of)[0]} {tau:+.2f}")
        told.append(_ordered(f"By {heading(column)[0]}", ours, column, agreement))
    if study.rankings:
        told += [_ordered(f"Published {heading(column)[0]}", figures, column, []) for column, figures in theirs.items()]
    return [one for one in told if one]


def _better(values: Mapping[str, float], column: str) -> dict[str, float]:
    """Numbers that are higher where a column is better."""
    sign = -1 if key_of_column(column).endswith(LOWER_IS_BETTER) else 1
    return {name: sign * value for name, value in values.items()}


def kendall(some: Mapping[str, float], others: Mapping[str, float]) -> float:
    """Kendall's tau b of the names that both have: 1 in the same order, -1 in the opposite one; nan of ties alone."""
    names = sorted(some.keys() & others.keys())
    mine, theirs = (torch.tensor([found[name] for name in names], dtype=torch.float64) for found in (some, others))
    tau: Any = kendall_rank_corrcoef(mine, theirs, variant="b")
    return float(tau)


def _means(column: str, lines: Sequence[Line]) -> dict[str, float]:
    _, scale, _ = heading(column)
    return {line.cell.name: scale * statistics.mean(values) for line in lines if (values := line.values(column))}


def _published(study: Study, column: str, lines: Sequence[Line]) -> dict[str, float]:
    """What was published of the cells that have been run, so that both orders are of the same ones."""
    names = {line.cell.name for line in lines if line.found}
    return {name: figure for name, figure in study.published[column].items() if name in names}


def _ordered(start: str, values: Mapping[str, float], column: str, remarks: Sequence[str]) -> str:
    if not values:
        return ""
    digits = heading(column)[2]
    better = _better(values, column)
    ordered = sorted(values, key=lambda name: -better[name])
    remark = f" ({', '.join(remarks)})" if remarks else ""
    return f"{start}{remark}: {'; '.join(f'{name} {values[name]:.{digits}f}' for name in ordered)}."
