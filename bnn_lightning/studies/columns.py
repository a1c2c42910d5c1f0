"""The columns of a study's report, and a cell's line in it."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnn_lightning.settings import UsageError
from bnn_lightning.studies.base import Cell

# Of each column: its title, what a value is multiplied by, and decimals.
COLUMNS: dict[str, tuple[str, float, int]] = {
    "accuracy": ("accuracy, %", 100, 2),
    "one_accuracy": ("1 sample, %", 100, 2),
    "mean_accuracy": ("mean weights, %", 100, 2),
    "kept_accuracy": ("kept weights, %", 100, 2),
    "val_accuracy": ("validation accuracy, %", 100, 2),
    "train_accuracy": ("training mode, %", 100, 2),
    "nll": ("NLL", 1, 4),
    "one_nll": ("NLL, 1 sample", 1, 4),
    "mean_nll": ("NLL, mean weights", 1, 4),
    "val_nll": ("validation NLL", 1, 4),
    "train_nll": ("training NLL", 1, 4),
    "brier": ("Brier score", 1, 4),
    "ece": ("ECE", 1, 4),
    "nll_scaled": ("NLL at T", 1, 4),
    "ece_scaled": ("ECE at T", 1, 4),
    "elbo_per_n": ("elbo/N", 1, 3),
    "kl_per_n": ("kl/N", 1, 3),
    "sigma_over_prior": ("sigma / prior", 1, 2),
    "sparsity": ("removed, %", 100, 1),
    "compression": ("compression", 1, 1),
    "parameters": ("parameters", 1, 0),
    "multiply_adds": ("multiply-adds", 1, 0),
    "step_ms": ("ms a step", 1, 1),
    "seconds": ("s a run", 1, 0),
    "sparsity_by_layer": ("removed by layer, %", 1, 1),
}
TEXTS = {"sparsity_by_layer"}
# What a column of seeds can be told by, beside mean and standard deviation.
_STATISTICS: dict[str, tuple[str, Callable[[Sequence[float]], tuple[float, ...]]]] = {
    "median": ("median", lambda values: (statistics.median(values),)),
    "range": ("lowest to highest", lambda values: (min(values), max(values))),
}


@dataclass(frozen=True)
class Line:
    """A cell with what its runs came to.

    ``values`` are those of each column, one a seed, as the rows have them; ``state`` says what is missing.
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


def heading(column: str) -> tuple[str, float, int]:
    """A column's title, what its values are multiplied by, and decimals.

    Raises:
        UsageError: when there is no such column.
    """
    key = key_of_column(column)
    if key not in COLUMNS:
        raise UsageError(
            f"column {column} of a study must be one of {', '.join(COLUMNS)}, or median_ or range_ of one."
        )
    title, scale, digits = COLUMNS[key]
    return (title if key == column else f"{title}: {_STATISTICS[column.partition('_')[0]][0]}"), scale, digits


def key_of_column(column: str) -> str:
    """The column of the rows that a column of the report is about."""
    kind, _, rest = column.partition("_")
    return rest if kind in _STATISTICS else column


def written(line: Line, column: str) -> str:
    """What stands in a cell's line under a column; nothing where no run has it."""
    if column in TEXTS:
        return "; ".join(dict.fromkeys(str(row[column]) for row in line.found if row.get(column)))
    _, scale, digits = heading(column)
    values = [scale * value for value in line.values(key_of_column(column))]
    if not values:
        return ""
    if column != key_of_column(column):
        _, function = _STATISTICS[column.partition("_")[0]]
        return " to ".join(f"{value:,.{digits}f}" for value in function(values))
    deviation = f" ± {spread(values):.{digits}f}" if spread(values) > 0 else ""
    return f"{statistics.mean(values):,.{digits}f}{deviation}"


def spread(values: Sequence[float]) -> float:
    """The standard deviation; 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
