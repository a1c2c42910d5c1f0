"""Reads tables: text with separators or blanks, Parquet, folders with given splits. Cells become numbers or texts."""

import csv
import re
import warnings
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from bnn_lightning.data.parquet_file import ParquetFile, is_parquet
from bnn_lightning.data.source import DataNotFoundError
from bnn_lightning.preprocessing.rows import MISSING, RawTable, as_column, number_in
from bnn_lightning.wording import listed, one_line

_SEPARATORS = (",", ";", "\t", "|")
_LOOKED_AT = 200  # rows, for the separator
_TOGETHER = 1_000  # rows whose cells are joined
_STATED = re.compile(r'"?sep=(.)"?\n?')  # what Excel takes the separator from, in a first line


def read_table(path: Path, texts: Collection[str] = (), setting: str = "path") -> RawTable:
    """The table in a file.

    A file that ends in ``.parquet`` is read by pyarrow; any other is text, see :func:`read_cells`. Columns that pandas
    has written to number the rows are the table's index.

    Args:
        path: the file.
        texts: names of columns that hold texts, which are left as they are: digits, as codes with a leading 0, words
            that may stand for no value, and truth values.
        setting: the argument that the file was given as, with which messages begin.

    Raises:
        DataNotFoundError: when there is no such file.
        ValueError: when it holds no table.
    """
    if is_parquet(path):
        return _parquet(path, setting).raw(texts)
    cells = read_cells(path, setting)
    if not cells.has_header and len(cells.lines) > 1 and _may_name_columns(cells.columns):
        warnings.warn(
            f"the first row of {path}, {listed(cells.names)}, is taken for values, because it has numbers; if it names "
            "the columns, begin a name with a letter where there are numbers below, such as y2019 for 2019.",
            stacklevel=2,
        )
    names = list(cells.names) if cells.has_header else [str(position) for position in range(len(cells.names))]
    columns = {
        name: as_column(list(column), is_text=name in texts) for name, column in zip(names, cells.columns, strict=True)
    }
    return RawTable(path, columns, cells.lines, setting, cells.index)


@dataclass(frozen=True)
class Texts:
    """The texts of a column, many in one: each by itself would take several times the memory of its letters.

    Args:
        parts: texts with NUL between them.
    """

    parts: Sequence[str]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(part.split("\0") for part in self.parts)


@dataclass(frozen=True)
class Cells:
    """A table in a text file, its cells as they stand there without blanks at their ends.

    Args:
        names: the cells of the first row.
        columns: the cells below a header, else all.
        lines: in which line of the file each row of these ends, from 1.
        has_header: whether the first row names the columns.
        index: the column that numbers the rows, if there is one: the first, without a name in a header.
    """

    names: tuple[str, ...]
    columns: tuple[Iterable[str], ...]
    lines: Sequence[int]
    has_header: bool
    index: tuple[str, ...] = ()


def read_cells(path: Path, setting: str = "path") -> Cells:
    """The cells of a text file, or those of a Parquet file as a text file would have them.

    The separator is a comma, a semicolon, a tab or a bar: that by which all rows have equally many cells, at least two,
    and of several the one with most, but no decimal comma; blanks where there is none. A first line ``sep=;``, as Excel
    has it, states it and is no row. The first row names the columns where none of its cells is a number; where one of
    them begins with a letter and has numbers below it; and where its cells are 0, 1, 2 and so on, as pandas names the
    columns of an array. Else their names are their positions, from 0. Of columns without a name, an empty one is left
    out.

    Raises:
        DataNotFoundError: when there is no such file.
        ValueError: when it holds no table.
    """
    if is_parquet(path):
        file = _parquet(path, setting)
        return Cells(tuple(file.names), tuple(file.texts()), file.lines, True, file.index)
    _require(path, setting)
    try:
        first, columns, lines = _divided(path, setting)
    except UnicodeError:
        raise ValueError(
            f"{setting} must be a table as text or Parquet, got {path}, which is neither; text must be in UTF-8."
        ) from None
    except csv.Error as error:
        raise ValueError(
            f"{setting} must be a table, got {path}, which cannot be read: {one_line(error)}; a cell that begins with "
            "a quotation mark ends with one, and those within it are written twice."
        ) from error
    if first == ["0", "1"]:
        raise ValueError(
            f"{setting} must be a table whose first row is names or numbers, got 0 and 1 in {path}, which may be both; "
            "name the columns, or move this row."
        )
    if not _is_header(first, columns):
        with_first = tuple(Texts((cell, *column.parts)) for cell, column in zip(first, columns, strict=True))
        return Cells(tuple(first), with_first, lines, False)
    names, columns, index = _named(first, columns)
    _require_different(names, path, setting)
    if len(lines) == 1:
        raise ValueError(f"{setting} must be a table with rows, got {path}, which has a header alone.")
    return Cells(tuple(names), tuple(columns), lines[1:], True, index)


def _divided(path: Path, setting: str) -> tuple[list[str], list[Texts], Sequence[int]]:
    """The cells of the first row that is not empty, the columns below it, and the number of the line of each row."""
    starts: dict[str, list[list[str]]] = {}
    with path.open(encoding="utf-8-sig") as file:
        stated = _STATED.fullmatch(file.readline())
    for each in (stated[1],) if stated else _SEPARATORS:
        starts[each] = []
        with suppress(csv.Error):  # the rows before it tell the separator, too
            starts[each].extend(row for _, row in islice(_rows(path, each), _LOOKED_AT))
    several = {separator: rows for separator, rows in starts.items() if rows and len(rows[0]) > 1}
    even = {separator: rows for separator, rows in several.items() if len({len(row) for row in rows}) == 1}
    if any(_has_decimal_commas(rows) for separator, rows in even.items() if separator != ","):
        even.pop(",", None)  # 1,5;2,5 in each row are two numbers and not three cells
    # Where no separator fits, it is the one of which the first row has most that the sentence is about.
    likely = even or several
    separator = max(likely, key=lambda separator: len(likely[separator][0]), default=None)
    rows = _rows(path, separator, strictly=True)
    number, first = next(rows, (0, []))
    if not first:
        raise ValueError(f"{setting} must be a table with rows, got {path}, which is empty.")
    lines, parts = array("q", [number]), [list[str]() for _ in first]
    while together := list(islice(rows, _TOGETHER)):
        for number, row in together:
            if len(row) != len(first):
                raise ValueError(
                    f"{setting} must be a table with equally many cells in each row, got {len(row)} in row {number} of "
                    f"{path}, whose first row has {len(first)}."
                )
        lines.extend(number for number, _ in together)
        for of_column, cells in zip(parts, zip(*(row for _, row in together), strict=True), strict=True):
            of_column.append("\0".join(cells))
    return first, [Texts(of_column) for of_column in parts], lines


def _has_decimal_commas(rows: Sequence[Sequence[str]]) -> bool:
    """Whether some cells have commas, and those that have are numbers with a decimal comma."""
    commas = [cell for row in rows for cell in row if "," in cell]
    return bool(commas) and all(number_in(cell.replace(",", ".")) is not None for cell in commas)


def _rows(path: Path, separator: str | None, strictly: bool = False) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line where it ends; None for blanks between the cells.

    Where ``strictly``, a row of several lines must have them in a cell whose quotation mark ends: one that does not
    would take the rows that follow into its cell.
    """
    with path.open(encoding="utf-8-sig") as file:
        lines = map(_as_text, _without_stated_separator(file))
        if separator is None:
            yield from ((number, line.split()) for number, line in enumerate(lines, 1) if line.strip())
            return
        of_row: list[str] = []

        def noted() -> Iterator[str]:
            for line in lines:
                of_row.append(line)
                yield line

        reader = csv.reader(noted(), delimiter=separator, skipinitialspace=True)
        try:
            for row in reader:
                if strictly and len(of_row) > 1:
                    list(csv.reader(of_row, delimiter=separator, skipinitialspace=True, strict=True))
                if len(row) > 1 or any(cell.strip() for cell in row):
                    yield reader.line_num, [cell.strip() for cell in row]
                of_row.clear()
        except csv.Error as error:
            raise csv.Error(f"{error} in the row that begins in line {reader.line_num - len(of_row) + 1}") from None


def _without_stated_separator(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield "\n" if number == 0 and _STATED.fullmatch(line) else line


def _as_text(line: str) -> str:
    if "\0" in line:  # of UTF-16, or of no text at all
        raise UnicodeError
    return line


def _is_header(first: Sequence[str], columns: Sequence[Iterable[str]]) -> bool:
    if list(first if first[0] else first[1:]) == [str(place) for place in range(len(first) - (not first[0]))]:
        return True
    if all(number_in(cell.replace(",", ".")) is None for cell in first):
        return any(cell.lower() not in MISSING for cell in first)
    for cell, column in zip(first, columns, strict=True):
        if _is_word(cell):
            below = [number_in(other) for other in column if other.lower() not in MISSING]
            if below and None not in below:
                return True
    return False


def _is_word(cell: str) -> bool:
    return cell[:1].isalpha() and number_in(cell) is None and cell.lower() not in MISSING


def _may_name_columns(columns: Sequence[Iterable[str]]) -> bool:
    """Whether the first row has numbers, and words that no other row has in their columns."""
    first = [next(iter(column)) for column in columns]
    words = [(cell, column) for cell, column in zip(first, columns, strict=True) if _is_word(cell)]
    has_numbers = any(number_in(cell) is not None for cell in first)
    return bool(words and has_numbers) and all(cell not in islice(column, 1, None) for cell, column in words)


def _named(first: Sequence[str], columns: Sequence[Texts]) -> tuple[list[str], list[Texts], tuple[str, ...]]:
    """The names of the columns that have one or a value, these columns, and the name of the index, if there is one."""
    kept = [place for place, (name, column) in enumerate(zip(first, columns, strict=True)) if name or any(column)]
    columns = [columns[place] for place in kept]
    names = [first[place] or f"Unnamed: {number}" for number, place in enumerate(kept)]
    is_index = not first[kept[0]] and len(names) > 1 and all(cell.isdecimal() for cell in columns[0])
    return names, columns, (names[0],) if is_index else ()


def _require_different(names: Sequence[str], path: Path, setting: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"{setting} must be a table whose columns have different names, got {twice} twice in {path}.")


def _parquet(path: Path, setting: str) -> ParquetFile:
    _require(path, setting)
    file = ParquetFile(path, setting)
    _require_different(file.names, path, setting)
    return file


def _require(path: Path, setting: str) -> None:
    if not path.is_file():
        raise DataNotFoundError(f"{setting} must be a table, got {path}, which is not there.")


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
        names = list(raw.columns)
        return raw, [names[number] for number in features], [names[number] for number in targets]

    def rows(self, split: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of training and of test rows of a split, of ``count`` rows.

        Raises:
            ValueError: when there is no such split, or a row is in both parts.
        """
        splits = len(list(self.folder.glob("index_test_*.txt")))
        if not splits:
            raise DataNotFoundError(f"path must be a folder with index_test_0.txt, got {self.folder}, which has none.")
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
