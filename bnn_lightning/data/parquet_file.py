"""Reads Parquet: columns as numbers or texts, or all as texts; which of them number the rows, or hold neither."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnn_lightning.preprocessing.rows import RawTable, column_of, texts_in
from bnn_lightning.wording import one_line

_INDEX = re.compile(r"__index_level_\d+__")


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet by its ending."""
    return path.suffix.lower() in (".parquet", ".pq")


class ParquetFile:
    """A table in a Parquet file.

    Args:
        path: the file.
        setting: the argument that it was given as, with which messages begin.

    Raises:
        ValueError: when it is no Parquet file or has no rows, or pyarrow is not installed.
    """

    def __init__(self, path: Path, setting: str):
        try:
            from pyarrow import ArrowException, parquet
        except ImportError:
            raise ValueError(
                f"{setting} must be a table as text where pyarrow is not installed, got {path}; pip install "
                "'bnn_lightning[parquet]'."
            ) from None
        try:
            self._table = parquet.ParquetFile(path).read()
            self._table.validate(full=True)  # damaged texts are found here, and not when they are decoded
        except (ArrowException, OSError) as error:
            raise ValueError(f"{setting} must be a Parquet file, got {path}: {one_line(error)}.") from error
        if not self._table.num_columns or not self._table.num_rows:
            raise ValueError(f"{setting} must be a table with rows, got {path}, which has none.")
        self.path, self.setting = path, setting

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return list(self._table.column_names)

    @property
    def index(self) -> tuple[str, ...]:
        """The columns that number the rows, as pandas has written them."""
        kept: Mapping[str, Any] = self._table.schema.pandas_metadata or {}
        return tuple(name for name in self.names if name in kept.get("index_columns", ()) or _INDEX.fullmatch(name))

    @property
    def lines(self) -> Sequence[int]:
        """The numbers of the rows."""
        return range(1, 1 + self._table.num_rows)

    def raw(self, texts: Collection[str]) -> RawTable:
        """The columns, those called like one of ``texts`` as they are."""
        from pyarrow import types

        columns, neither = {}, {}
        for name, column in zip(self.names, self._table.columns, strict=True):
            if name in texts:
                columns[name] = column_of(texts_in(column.to_pylist()), is_text=True)
            elif types.is_integer(column.type) or types.is_floating(column.type):
                columns[name] = column.to_numpy().astype(np.float64)
            else:
                columns[name] = column_of(column.to_pylist())
            if types.is_nested(column.type) or types.is_binary(column.type) or types.is_large_binary(column.type):
                neither[name] = str(column.type)
        return RawTable(self.path, columns, self.lines, self.setting, self.index, neither)

    def texts(self) -> list[list[str]]:
        """The columns as they would be in a text file: whole numbers without a point, "" where there is no value."""
        return [texts_in(column.to_pylist()) for column in self._table.columns]
