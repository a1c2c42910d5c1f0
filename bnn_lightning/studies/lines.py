"""A cell's line in a study's report."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnn_lightning.studies import rows
from bnn_lightning.studies.base import Cell, Study
from bnn_lightning.studies.columns import STATISTICS, TEXTS, heading, key_of_column


@dataclass(frozen=True)
class Line:
    """A cell with what its runs came to.

    ``found`` are the rows of its finished runs; ``state`` says what is missing.
    """

    cell: Cell
    found: Sequence[Mapping[str, Any]]
    state: str

    def values(self, column: str) -> list[float]:
        return [float(row[column]) for row in self.found if row.get(column) not in (None, "")]

    @property
    def marks(self) -> str:
        # A run without a hold-out is not calibrated, which matters to no column that is shown for it.
        texts = [mark for row in self.found for mark in (row.get("marks") or "").split(", ") if mark]
        texts = [mark for mark in texts if mark != "not calibrated"]
        return ", ".join([*dict.fromkeys(texts), *([self.state] if self.state else [])])


def lines_of(study: Study, found: Iterable[Mapping[str, Any]]) -> list[Line]:
    """A line for each cell of the study, from rows that were made with its present settings."""
    by_key = {rows.key_of(study, row): _completed(row) for row in found}
    lines = []
    for cell in study.all_cells():
        mine = [by_key.get(study.task(cell, seed).key) for seed in cell.seeds]
        done = [row for row in mine if row is not None and not row.get("failed")]
        # The first sentence says what happened; the row has the cure too.
        failed = [row["failed"].split(". ")[0].rstrip(".") for row in mine if row is not None and row.get("failed")]
        missing = sum(row is None for row in mine)
        states = [f"{len(failed)} failed: {failed[0]}"] if failed else []
        if missing:
            states.append("not run yet" if missing == len(mine) else f"{missing} of {len(mine)} seeds not run yet")
        lines.append(Line(cell, done, "; ".join(states)))
    return lines


def _completed(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A deterministic network predicts by its weights, and any number of samples are that again."""
    if row.get("predicted by") != "deterministic":
        return row
    same = {f"{start}{name}": row.get(name) for start in ("one_", "mean_") for name in rows.MEASURES}
    return {**row, **same}


def written(line: Line, column: str) -> str:
    """What stands in a cell's line under a column; nothing where no run has it."""
    if column in TEXTS:
        return "; ".join(dict.fromkeys(str(row[column]) for row in line.found if row.get(column)))
    _, scale, digits = heading(column)
    values = [scale * value for value in line.values(key_of_column(column))]
    if not values:
        return ""
    if column != key_of_column(column):
        _, function = STATISTICS[column.partition("_")[0]]
        return " to ".join(f"{value:,.{digits}f}" for value in function(values))
    deviation = f" ± {spread(values):.{digits}f}" if spread(values) > 0 else ""
    return f"{statistics.mean(values):,.{digits}f}{deviation}"


def spread(values: Sequence[float]) -> float:
    """The standard deviation; 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
