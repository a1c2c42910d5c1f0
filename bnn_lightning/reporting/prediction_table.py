"""PredictionTable: the rows of predict, written as CSV or Parquet while they come, and put in place at the end."""

import csv
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, Self

from bnn_lightning.files import UnwritableError, as_utf8, put_in_place
from bnn_lightning.likelihoods.predictions import Predictions
from bnn_lightning.reporting.results import free_name

_PARQUET = (".parquet", ".pq")


def check_output(path: Path) -> None:
    """Refuses a file that predictions cannot be written to.

    Raises:
        ValueError: for another ending than .csv and .parquet, for a folder, and without pyarrow.
    """
    ending = path.suffix.lower()
    if ending != ".csv" and ending not in _PARQUET:
        raise ValueError(f"output must end in .csv or .parquet, got {path}.")
    if path.is_dir():
        raise ValueError(f"output must be a file, got the folder {path}.")
    if ending in _PARQUET:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ValueError(
                f"output must end in .csv where pyarrow is not installed, got {path}; pip install "
                "'bnn_lightning[parquet]'."
            ) from None


class PredictionTable:
    """Writes predictions as they come, in memory that does not grow with their number.

    Rows go to ``NAME.unfinished.RANDOM.csv`` beside the file, which takes the file's name when all are there. A process
    that is stopped, or killed, leaves the rows that it had come to under that name; as Parquet, one that is killed
    leaves nothing that can be read. Its columns are those of the first rows, and ``error``.

    Args:
        folder: where ``predictions.csv`` is written, or ``predictions_1.csv`` and so on where there are some already.
        file: that is written instead, in the place of one that is there; its ending says which kind.
    """

    def __init__(self, folder: Path, file: Path | None = None):
        self._folder, self._file = folder, file
        named = folder / "predictions.csv" if file is None else file
        self.unfinished = named.with_name(f"{named.stem}.unfinished.{token_hex(4)}{named.suffix}")
        self.rows = 0
        """How many have been written."""
        self._writer: _Writer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._writer is not None and self._writer.is_open:
            with suppress(OSError):  # of a full disk, which has been said
                self._writer.close()
            if kind is None or not self.rows:
                self.unfinished.unlink(missing_ok=True)

    def add(self, predictions: Predictions) -> None:
        """Writes rows.

        Raises:
            UnwritableError: when the disk is full, the folder read-only, and so on.
        """
        columns = predictions.columns()
        self._add(columns, predictions.kinds(columns), len(predictions))

    def add_unreadable(self, reasons: Mapping[str, str]) -> None:
        """Writes a row for each file that could not be read, with the reason.

        Raises:
            UnwritableError: likewise.
        """
        columns: dict[str, Sequence[Any]] = {"file": list(reasons), "error": list(reasons.values())}
        if reasons:
            self._add(columns, {"file": str}, len(reasons))

    def finish(self) -> Path:
        """Puts the file in its place, and says where that is.

        Raises:
            UnwritableError: likewise; the rows stay where they are.
        """
        try:
            if self._writer is None:
                self._start({"file": str})
            self._writer.close()  # type: ignore[union-attr]
            if self._file is not None:
                put_in_place(self.unfinished, self._file)
                return self._file
            with free_name(self._folder, "predictions") as name:
                put_in_place(self.unfinished, self._folder / f"{name}.csv")
                return self._folder / f"{name}.csv"
        except OSError as error:
            raise self._unwritable(error) from error

    def _add(self, columns: Mapping[str, Sequence[Any]], kinds: Mapping[str, type], count: int) -> None:
        try:
            if self._writer is None:
                self._start(kinds)
            self._writer.write(columns, count)  # type: ignore[union-attr]
        except OSError as error:
            raise self._unwritable(error) from error
        self.rows += count

    def _start(self, kinds: Mapping[str, type]) -> None:
        self.unfinished.parent.mkdir(parents=True, exist_ok=True)
        kind = _ParquetWriter if self.unfinished.suffix.lower() in _PARQUET else _CsvWriter
        self._writer = kind(self.unfinished.open("wb"), dict(kinds) | {"error": str})

    def _unwritable(self, error: OSError) -> UnwritableError:
        kept = f"; the first {self.rows:,} rows are in {self.unfinished}" if self.rows else ""
        if isinstance(error, UnwritableError):
            return UnwritableError(f"{str(error).rstrip('.')}{kept}.")
        place = self._file or self._folder / "predictions.csv"
        return UnwritableError(f"{place} cannot be written: {error.strerror or error}{kept}.")


def table_text(columns: Mapping[str, Sequence[Any]], with_header: bool) -> str:
    """Rows of a CSV file, for the screen."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if with_header:
        writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


class _Writer(ABC):
    """Writes columns of given kinds to an open file."""

    def __init__(self, file: BinaryIO, kinds: Mapping[str, type]):
        self.file, self.kinds = file, kinds

    @property
    def is_open(self) -> bool:
        return not self.file.closed

    @abstractmethod
    def write(self, columns: Mapping[str, Sequence[Any]], count: int) -> None:
        """Writes ``count`` rows; a column that is not among ``columns`` has no values."""

    def close(self) -> None:
        """Writes what is left; afterwards all of it is on the disk."""
        if self.is_open:
            with self.file:
                self.file.flush()
                os.fsync(self.file.fileno())


class _CsvWriter(_Writer):
    def __init__(self, file: BinaryIO, kinds: Mapping[str, type]):
        super().__init__(file, kinds)
        self._has_header = False

    def write(self, columns: Mapping[str, Sequence[Any]], count: int) -> None:
        whole = {name: columns.get(name, [None] * count) for name in self.kinds}
        self.file.write(as_utf8(table_text(whole, not self._has_header)))
        self.file.flush()
        self._has_header = True

    def close(self) -> None:
        if self.is_open and not self._has_header:
            self.write({}, 0)
        super().close()


class _ParquetWriter(_Writer):
    """Whole numbers are int64 with nulls, and pandas is told so: it would make floats of them."""

    def __init__(self, file: BinaryIO, kinds: Mapping[str, type]):
        import pyarrow
        from pyarrow import parquet

        super().__init__(file, kinds)
        types = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
        named = {as_utf8(name).decode(): kind for name, kind in kinds.items()}
        fields = [(name, types[kind]) for name, kind in named.items()]
        self._schema = pyarrow.schema(fields, metadata={"pandas": json.dumps(_for_pandas(named))})
        self._writer = parquet.ParquetWriter(file, self._schema)

    def write(self, columns: Mapping[str, Sequence[Any]], count: int) -> None:
        import pyarrow

        arrays = []
        for name, field in zip(self.kinds, self._schema, strict=True):
            values = columns.get(name, [None] * count)
            if self.kinds[name] is str:
                values = [None if value is None else as_utf8(str(value)).decode() for value in values]
            arrays.append(pyarrow.array(values, field.type))
        self._writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        if self.is_open:
            self._writer.close()
        super().close()


def _for_pandas(kinds: Mapping[str, type]) -> dict[str, Any]:
    """What pandas reads of the types of columns, by the specification of its metadata in Parquet files."""
    words = {int: ("int64", "Int64"), float: ("float64", "float64"), str: ("unicode", "object")}
    columns = [
        {"name": name, "field_name": name, "metadata": None}
        | dict(zip(("pandas_type", "numpy_type"), words[kind], strict=True))
        for name, kind in kinds.items()
    ]
    return {"columns": columns, "index_columns": [], "column_indexes": [], "pandas_version": "1.5.0"}
