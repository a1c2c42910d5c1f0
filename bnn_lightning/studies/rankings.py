"""Cells in the order of a column, and how far that is the published order."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations

from bnn_lightning.studies.base import Study
from bnn_lightning.studies.columns import heading
from bnn_lightning.studies.lines import Line


def rankings(study: Study, lines: Sequence[Line]) -> list[str]:
    """A sentence for each column that the study ranks its cells by, and one for the published figures among them."""
    told = []
    ours = {column: _means(column, lines) for column in study.rankings}
    theirs = {column: _published(study, column, lines) for column in study.rankings if column in study.published}
    for column, values in ours.items():
        agreement = [
            f"Kendall's tau with the published order {kendall(values, figures):+.2f}"
            for figures in theirs.values()
            if len(values.keys() & figures.keys()) > 1
        ]
        told.append(_ordered(f"By {heading(column)[0]}", values, column, agreement))
    told += [_ordered(f"Published, {heading(column)[0]}", figures, column, []) for column, figures in theirs.items()]
    return [one for one in told if one]


def kendall(some: Mapping[str, float], others: Mapping[str, float]) -> float:
    """Kendall's tau: of all pairs of names, the share in the same order less the share in the opposite one.

    A pair that is tied in either is in no order (tau a).
    """
    pairs = list(combinations(some.keys() & others.keys(), 2))
    products = [(some[one] - some[other]) * (others[one] - others[other]) for one, other in pairs]
    return sum((product > 0) - (product < 0) for product in products) / len(pairs)


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
    ordered = sorted(values, key=lambda name: -values[name])
    remark = f" ({', '.join(remarks)})" if remarks else ""
    return f"{start}{remark}: {'; '.join(f'{name} {values[name]:.{digits}f}' for name in ordered)}."
