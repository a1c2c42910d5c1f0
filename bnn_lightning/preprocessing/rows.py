"""RawTable: rows as columns of numbers or texts, from cells of a file or from values of Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MISSING = ("", "?", "na", "n/a", "nan", "null", "none")
"""Texts that stand for no value, in small letters."""


@dataclass(frozen=True)
class RawTable:
    """The columns of a file by name: float64 with nan where there is no value, or texts with "" likewise.

    Args:
        path: the file, or what stands in sentences for rows that are in no file.
        columns: ``(rows,)`` each.
        first_row: number of the first row in the file, for messages: 1, or 2 below a header.
        setting: the argument that the table was given as, with which messages begin.
    """

    path: Path | str
    columns: Mapping[str, np.ndarray]
    first_row: int = 1
    setting: str = "path"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def where(self, bad: np.ndarray) -> str:
        """Where the first of the rows is for which ``bad`` is true, for a message."""
        return f"row {int(bad.argmax()) + self.first_row} of {self.path}"


def as_column(cells: list[str], is_text: bool = False) -> np.ndarray:
    """Cells as float64 where all that have a value are numbers, and it is none of texts; else as texts."""
    texts = ["" if cell.lower() in MISSING else cell for cell in cells]
    if is_text:
        return np.array(texts, dtype=object)
    try:
        return np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return np.array(texts, dtype=object)


def is_number(text: str) -> bool:
    """Whether ``text`` can be read as a float."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def column_of(values: Sequence[Any]) -> np.ndarray:
    """Values of Python as float64 where all are numbers, else as texts; None and nan are no value."""
    if all(value is None or isinstance(value, bool | int | float) for value in values):
        return np.array([np.nan if value is None else float(value) for value in values])
    without = [value is None or (isinstance(value, float) and value != value) for value in values]
    return np.array(["" if gone else str(value) for gone, value in zip(without, values, strict=True)], dtype=object)
