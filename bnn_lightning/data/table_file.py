"""Reads tables: text with separators or blanks, Parquet, folders with given splits. Cells become numbers or texts."""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnn_lightning.data.source import DataNotFoundError
from bnn_lightning.preprocessing.rows import MISSING, RawTable, as_column, column_of, is_number
from bnn_lightning.wording import one_line

_SEPARATORS = (",", ";", "\t", "|")


def read_table(path: Path, texts: Collection[str] = (), setting: str = "path") -> RawTable:
    """The table in a file.

    A file that ends in ``.parquet`` is read by pyarrow; any other is text, whose separator is a comma, a semicolon, a
    tab or a bar, whichever the first line has most of, and blanks where it has none. The first row names the columns
    where none of its cells is a number; else their names are their positions, from 0.

    Args:
        path: the file.
        texts: names of columns that hold texts, even where all of them are digits, as codes with a leading 0 are.
        setting: the argument that the file was given as, with which messages begin.

    Raises:
        DataNotFoundError: when there is no such file.
        ValueError: when it holds no table.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        _require(path, setting)
        return _read_parquet(path, setting)
    cells = read_cells(path, setting)
    names = list(cells.names) if cells.has_header else [str(position) for position in range(len(cells.names))]
    columns = {
        name: as_column(list(column), is_text=name in texts)
        for name, column in zip(names, zip(*cells.rows, strict=True), strict=True)
    }
    return RawTable(path, columns, 1 + cells.has_header, setting)


@dataclass(frozen=True)
class Cells:
    """A table in a text file, its cells as they stand there without blanks at their ends.

    Args:
        names: the cells of the first row.
        rows: the others below a header, else all.
        has_header: whether the first row names the columns: none of its cells is a number.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    has_header: bool


def read_cells(path: Path, setting: str = "path") -> Cells:
    """The cells of a text file, see :func:`read_table`.

    Raises:
        DataNotFoundError: when there is no such file.
        ValueError: when it holds no table.
    """
    _require(path, setting)
    try:
        lines = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(
            f"{setting} must be a table as text or Parquet, got {path}, which is neither; text must be in UTF-8."
        ) from None
    if not lines:
        raise ValueError(f"{setting} must be a table with rows, got {path}, which is empty.")
    separator = max(_SEPARATORS, key=lines[0].count)
    cells = list(csv.reader(lines, delimiter=separator)) if separator in lines[0] else [line.split() for line in lines]
    names = [name.strip() for name in cells[0]]
    has_header = not any(is_number(name) or name.lower() in MISSING for name in names)
    if has_header and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{setting} must be a table whose columns have different names, got {twice} twice in {path}.")
    rows = cells[1:] if has_header else cells
    if not rows:
        raise ValueError(f"{setting} must be a table with rows, got {path}, which has a header alone.")
    for number, row in enumerate(rows, start=1 + has_header):
        if len(row) != len(names):
            raise ValueError(
                f"{setting} must be a table with equally many cells in each row, got {len(row)} in row {number} of "
                f"{path}, whose first row has {len(names)}."
            )
    return Cells(tuple(names), tuple(tuple(cell.strip() for cell in row) for row in rows), has_header)


def _require(path: Path, setting: str) -> None:
    if not path.is_file():
        raise DataNotFoundError(f"{setting} must be a table, got {path}, which is not there.")


def _read_parquet(path: Path, setting: str) -> RawTable:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError(
            f"{setting} must be a table as text where pyarrow is not installed, got {path}; pip install "
            "'bnn_lightning[parquet]'."
        ) from None
    try:
        table = parquet.read_table(path)
    except Exception as error:  # of pyarrow's own kinds
        raise ValueError(f"{setting} must be a Parquet file, got {path}: {one_line(error)}.") from error
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        columns[name] = column_of(column.to_pylist())
    if not columns or not len(next(iter(columns.values()))):
        raise ValueError(f"{setting} must be a table with rows, got {path}, which has none.")
    return RawTable(path, columns, setting=setting)


@dataclass(frozen=True)
class GivenSplits:
    """A folder in the layout of the UCI benchmarks: one table, and files of row numbers for each split.

    Args:
        folder: with ``data.txt``, ``index_features.txt``, ``index_target.txt``, and for each split K
            ``index_train_K.txt`` and ``index_test_K.txt``; numbers of columns and rows begin at 0.
    """

    folder: Path

    def table(self) -> tuple[RawTable, list[str], list[str]]:
        """The table, and the names of its feature and target columns."""
        raw = read_table(self.folder / "data.txt")
        features, targets = (self._numbers(f"index_{kind}.txt", len(raw.columns)) for kind in ("features", "target"))
        return raw, [str(number) for number in features], [str(number) for number in targets]

    def rows(self, split: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of training and of test rows of a split, of ``count`` rows.

        Raises:
            ValueError: when there is no such split, or a row is in both parts.
        """
        splits = len(list(self.folder.glob("index_test_*.txt")))
        if not 0 <= split < splits:
            raise ValueError(f"split must be from 0 to {splits - 1} for {self.folder}, got {split}.")
        train, test = (self._numbers(f"index_{part}_{split}.txt", count) for part in ("train", "test"))
        if both := set(train.tolist()) & set(test.tolist()):
            raise ValueError(f"split {split} of {self.folder} has row {min(both)} in training and in test.")
        return train, test

    def _numbers(self, name: str, count: int) -> np.ndarray:
        path = self.folder / name
        if not path.is_file():
            raise DataNotFoundError(f"path must be a folder with {name}, got {self.folder}, which has none.")
        try:
            numbers = np.array([float(text) for text in path.read_text("utf-8").split()])
        except ValueError:
            raise ValueError(f"path must have whole numbers in {path}, got something else.") from None
        if len(numbers) == 0 or (numbers % 1 != 0).any() or numbers.min() < 0 or numbers.max() >= count:
            raise ValueError(f"path must have whole numbers from 0 to {count - 1} in {path}, got others.")
        return numbers.astype(np.int64)
