"""The lines of a study's report, one for each cell."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnn_lightning.studies import rows
from bnn_lightning.studies.base import Cell, Study
from bnn_lightning.studies.columns import STATISTICS, TEXTS, heading, row_column

NOT_RUN = "not run yet"
"""The state of a line of which no run has a row."""


@dataclass(frozen=True)
class Line:
    """A cell with the rows of its finished runs; ``state`` says which runs have failed or are missing."""

    cell: Cell
    runs: Sequence[Mapping[str, Any]]
    state: str

    def values(self, column: str) -> list[float]:
        """The values of a column, one for each run that has one."""
        return [float(row[column]) for row in self.runs if row.get(column) not in (None, "")]

    @property
    def caveats(self) -> str:
        """What has to be said beside the results: the caveats of the runs, and ``state``."""
        # A run without a hold-out is not calibrated, and the columns that would need it stay empty.
        texts = [caveat for row in self.runs for caveat in (row.get("caveats") or "").split(", ") if caveat]
        texts = [mark for mark in texts if mark != "not calibrated"]
        return ", ".join([*dict.fromkeys(texts), *([self.state] if self.state else [])])


def report_lines(study: Study, all_rows: Iterable[Mapping[str, Any]]) -> list[Line]:
    """A line for each cell of the study, with those of the rows that were made with its present settings."""
    by_key = {rows.key_of(study, row): _with_mean_weights(row) for row in all_rows}
    lines = []
    for cell in study.all_cells():
        wanted = [by_key.get(study.task(cell, seed).key) for seed in cell.seeds]
        finished = [row for row in wanted if row is not None and not row.get("failed")]
        # The first sentence of a message says what happened; those after it say what to do.
        failed = [row["failed"].split(". ")[0].rstrip(".") for row in wanted if row is not None and row.get("failed")]
        missing = sum(row is None for row in wanted)
        states = [f"{len(failed)} failed: {failed[0]}"] if failed else []
        if missing:
            states.append(NOT_RUN if missing == len(wanted) else f"{missing} of {len(wanted)} seeds not run yet")
        lines.append(Line(cell, finished, "; ".join(states)))
    return lines


def _with_mean_weights(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of a deterministic network with its results as those of mean weights and of one sample, too."""
    if row.get("predicted by") != "deterministic":
        return row
    same = {f"{start}{name}": row.get(name) for start in ("one_", "mean_") for name in rows.MEASURES}
    return {**row, **same}


def cell_text(line: Line, column: str) -> str:
    """The text under a report column in the line of a cell; empty where no run has a value."""
    if column in TEXTS:
        return "; ".join(dict.fromkeys(str(row[column]) for row in line.runs if row.get(column)))
    _, scale, digits = heading(column)
    values = [scale * value for value in line.values(row_column(column))]
    if not values:
        return ""
    if column != row_column(column):
        _, function = STATISTICS[column.partition("_")[0]]
        return " to ".join(f"{value:,.{digits}f}" for value in function(values))
    deviation = f" ± {standard_deviation(values):.{digits}f}" if standard_deviation(values) > 0 else ""
    of = f" ({len(values)} of {len(line.runs)})" if len(values) < len(line.runs) else ""  # others may have diverged
    return f"{statistics.mean(values):,.{digits}f}{deviation}{of}"


def standard_deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample; 0 for a single value, and nan where one is not finite."""
    if not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) if len(values) > 1 else 0.0
