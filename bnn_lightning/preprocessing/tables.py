"""RowPreparation: what a program has of table rows, made what a network takes, as the rows of training were."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from bnn_lightning.preprocessing.arrays import Layout, is_array
from bnn_lightning.preprocessing.columns import Columns, Missing
from bnn_lightning.preprocessing.images import Batch
from bnn_lightning.preprocessing.rows import RawTable, column_of
from bnn_lightning.preprocessing.scaling import standardised

_KINDS = "a DataFrame, a dictionary of values by column, a list of these, or an array with the columns in their order"


@dataclass(frozen=True)
class RowPreparation:
    """Prepares rows as those of training were.

    Args:
        columns: of the features.
        missing: what becomes of features without a value.
        mean, std: of each feature.
    """

    columns: Columns
    missing: Missing
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """That of a checkpoint's description of its data."""
        mean, std = tuple(description["mean"]), tuple(description["std"])
        return cls(Columns(description["columns"]), description["missing"], mean, std)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row that is prepared."""
        return (len(self.mean),)

    def batches(self, rows: Any, size: int, layout: Layout | None = None) -> Iterator[Batch]:
        """Rows by at most ``size``, prepared.

        Args:
            rows: a pandas DataFrame; a dictionary of a row's values by column, or a list of such; an array or tensor
                ``(rows, columns)`` or ``(columns,)`` with the columns in the order of the checkpoint. Columns that the
                network does not know are passed over where rows have names.
            size: of a batch.
            layout: of images alone.

        Raises:
            ValueError: when it is none of these, when a column lacks, or holds what training has not had.
        """
        if layout is not None:
            raise ValueError(f"layout must be None for the rows of a table, got {layout}.")
        features = self.columns.encoded(self._table(rows), self.missing)
        return (Batch(part, None) for part in standardised(features, self.mean, self.std).split(size))

    def _table(self, rows: Any) -> RawTable:
        if hasattr(rows, "columns") and hasattr(rows, "notna"):  # of pandas, which may not be installed
            rows = rows.set_axis([str(name) for name in rows.columns], axis=1)
            if twice := set(rows.columns[rows.columns.duplicated()]) & set(self.columns.levels):
                raise ValueError(f"rows must have columns of different names, got {min(twice)} twice.")
            known = [name for name in self.columns.levels if name in rows.columns]
            objects = rows[known].astype(object).where(rows[known].notna(), None)
            return self._of_columns({name: objects[name].tolist() for name in known}, len(rows), "the DataFrame")
        if is_array(rows):
            values = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else rows
            return self._of_array(values[None] if values.ndim == 1 else values)
        each = [rows] if isinstance(rows, Mapping) else rows
        if not isinstance(each, Sequence) or isinstance(each, str) or not all(isinstance(row, Mapping) for row in each):
            raise ValueError(f"rows must be {_KINDS}, got {type(rows).__name__}.")
        named = [{str(name): value for name, value in row.items()} for row in each]
        known = [name for name in self.columns.levels if any(name in row for row in named)]
        columns = {name: [_plain(row.get(name)) for row in named] for name in known}
        return self._of_columns(columns, len(named), "the list of rows")

    def _of_array(self, values: np.ndarray) -> RawTable:
        names = list(self.columns.levels)
        if values.ndim != 2 or values.shape[1] != len(names):
            raise ValueError(
                f"rows must have a column for each of {', '.join(names)}, in this order, got the shape {values.shape}."
            )
        columns = {name: [_plain(value) for value in values[:, place].tolist()] for place, name in enumerate(names)}
        return self._of_columns(columns, len(values), "the array")

    def _of_columns(self, columns: Mapping[str, Sequence[Any]], count: int, given: str) -> RawTable:
        if not count:
            raise ValueError("rows must be one or more, got none.")
        if lacking := [name for name in self.columns.levels if name not in columns]:
            raise ValueError(f"rows must have the column {lacking[0]}, got {given} without it.")
        read = {name: column_of(columns[name], levels is not None) for name, levels in self.columns.levels.items()}
        return RawTable(given, read, range(count), "rows")


def _plain(value: Any) -> Any:
    """A value of numpy as Python has it."""
    return value.item() if isinstance(value, np.generic) else value
