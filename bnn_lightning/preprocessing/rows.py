"""RawTable: rows as columns of numbers or texts, from cells of a file or from values of Python."""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

MISSING = ("", "?", "na", "n/a", "nan", "null", "none")
"""Texts that stand for no value, in small letters."""
TRUTHS = {"false": "False", "true": "True"}
"""The texts of a column of truth values, by how they are written in small letters."""


@dataclass(frozen=True)
class RawTable:
    """The columns of a file by name: float64 with nan where there is no value, or texts with "" likewise.

    Which words of a text column stand for no value, and how truth values are written, depends on the texts that are
    known of it: :class:`~bnn_lightning.preprocessing.columns.Columns` decides it where they are.

    Args:
        path: the file, or what stands in sentences for rows that are in no file.
        columns: ``(rows,)`` each.
        lines: the number of each row in the file, for messages.
        setting: the argument that the table was given as, with which messages begin.
        index: names of the columns that number the rows, as pandas writes them.
        neither: columns whose cells are lists, structures or bytes, which Parquet has, each with its type.
    """

    path: Path | str
    columns: Mapping[str, np.ndarray]
    lines: Sequence[int]
    setting: str = "path"
    index: tuple[str, ...] = ()
    neither: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, bad: np.ndarray) -> str:
        """Where the first of the rows is for which ``bad`` is true, for a message."""
        return f"row {self.lines[int(bad.argmax())]} of {self.path}"


def as_column(cells: Sequence[str], is_text: bool = False) -> np.ndarray:
    """Cells as float64 where all that have a value are numbers, else as texts; those of a text column as they are."""
    if is_text:
        return _of_objects(cells)
    texts = ["" if cell.lower() in MISSING else cell for cell in cells]
    values = [number_in(text) if text else math.nan for text in texts]
    if all(value is not None for value in values):
        return np.array(values, dtype=np.float64)
    return _of_texts(texts)


def number_in(text: str) -> float | None:
    """The number that ``text`` is, as C reads it; None where it is none."""
    try:
        return None if "_" in text else float(text)  # Python's own literals may have underscores
    except ValueError:
        return None


def column_of(values: Sequence[Any], is_text: bool = False) -> np.ndarray:
    """Values of Python as float64 where all are numbers, else as texts; None, nan and "" are no value.

    Truth values are the texts False and True, as they are in a file; texts that mean them stay as they are where the
    column ``is_text``. A number beyond float64 is infinite.
    """
    plain = [None if _is_missing(value) else value for value in values]
    if all(value is None or _is_number(value) for value in plain):
        return np.array([math.nan if value is None else _float(value) for value in plain])
    texts = ["" if value is None else _text(value) for value in plain]
    return _of_objects(texts) if is_text else _of_texts(texts)


def _of_texts(texts: Sequence[str]) -> np.ndarray:
    """Texts as a column; those of truth values in one way of writing them."""
    if all(text.lower() in TRUTHS for text in texts if text) and any(texts):
        texts = [TRUTHS.get(text.lower(), "") for text in texts]
    return _of_objects(texts)


def _of_objects(texts: Sequence[str]) -> np.ndarray:
    """Texts as an array, in which those that are alike are one object: a column mostly has few."""
    return np.array(list(map(intern, texts)), dtype=object)


def texts_of(column: np.ndarray) -> np.ndarray:
    """A column as texts, "" where there is no value: a file may have numbers alone where another one has texts."""
    if column.dtype != np.float64:
        return column
    return np.array(["" if math.isnan(value) else _text(value) for value in column.tolist()], dtype=object)


def texts_in(values: Sequence[Any]) -> list[str]:
    """Values of Python as a text file would have them: whole numbers without a point, "" where there is no value."""
    return ["" if _is_missing(value) else _text(value) for value in values]


def _is_missing(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return not value
    is_itself = value == value
    return not (isinstance(is_itself, bool | np.bool_) and is_itself)  # nan is not, and pandas' NA does not say


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real | Decimal) and not isinstance(value, bool | np.bool_)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _text(value: Any) -> str:
    if isinstance(value, float | Decimal):
        value = float(value)
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)
