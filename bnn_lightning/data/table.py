"""Table: rows of numbers and categories, with one or several numbers to predict."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from bnn_lightning.data.loader import EpochLoader, EpochSampler
from bnn_lightning.data.source import DataSource, after_setup
from bnn_lightning.data.splits import stratified_split
from bnn_lightning.data.table_file import GivenSplits, read_table
from bnn_lightning.files import expanded
from bnn_lightning.preprocessing.columns import Columns, Missing, numbers_of
from bnn_lightning.preprocessing.rows import RawTable
from bnn_lightning.preprocessing.scaling import standardised
from bnn_lightning.wording import counted, listed


@dataclass(frozen=True)
class Rows:
    """Rows of a table; ``rows[index]`` selects some of them.

    Args:
        features: ``(rows, features)``, float32, standardised once a source has been set up.
        labels: the targets, ``(rows, targets)``, float32, in the units of the table; nan where not known.
    """

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: Tensor | slice) -> "Rows":
        return Rows(self.features[index], self.labels[index])


class RowLoader(EpochLoader):
    """Serves rows: features ``(batch, features)`` and targets ``(batch, targets)``, both float32."""

    def __init__(self, rows: Rows, batch_size: int, sampler: EpochSampler, device: torch.device | str = "cpu"):
        super().__init__(len(rows), batch_size, sampler, device)
        self.features, self.labels = rows.features.to(self.device), rows.labels.to(self.device)
        self.index_device = self.device

    def batch(self, index: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return self.features[index], self.labels[index]


class Table(DataSource):
    """A table with a row for each example, as text with separators or Parquet; or a folder with given splits.

    Features and targets are standardised by the training rows; every result is in the targets' own units. Columns of
    texts become one-hot features. Where the file is a folder with ``data.txt``, ``index_features.txt`` and so on, as
    the UCI benchmarks have them, columns and test rows are those that it gives.

    Args:
        path: the file, or the folder, with ~ and $VARIABLES.
        target: name of the column to predict, or a list of several; null is the last. Where the first row names no
            columns, their names are their positions, from 0.
        features: names of the columns to predict from, or a single one; null takes all others but the numbers of rows
            that pandas has written.
        test_path: a file of test rows with the same columns; null takes them from the table.
        test_split: the share of rows, chosen by ``seed``, that are test rows.
        split: number of the given split, from 0.
        missing: what becomes of features without a value: refuse, or mean (the mean over the training rows; of texts,
            none of the one-hot features is 1). Rows without a target are refused.
        batch_size: rows in a training batch.
        eval_batch_size: rows in a batch of validation, test and prediction.
        val_split: share of the training rows that is held out, 0 for none.
        ood: files of other rows with the same columns: test measures how well uncertainty separates them.
        seed: of the test rows, the hold-out and the order of training batches.

    Raises:
        ValueError: when an argument is out of range; the message names it.
    """

    name_identifies_examples = False

    def __init__(
        self,
        path: str,
        target: str | int | list[str] | list[int] | None = None,
        features: str | int | list[str] | list[int] | None = None,
        test_path: str | None = None,
        test_split: float = 0.1,
        split: int = 0,
        missing: Missing = "refuse",
        batch_size: int = 32,
        eval_batch_size: int = 2048,
        val_split: float = 0.2,
        ood: list[str] | None = None,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, val_split, seed)
        if not 0 < test_split < 1:
            raise ValueError(f"test_split must be between 0 and 1, such as 0.1, got {test_split}.")
        if missing not in get_args(Missing):
            raise ValueError(f"missing must be one of {', '.join(get_args(Missing))}, got {missing}.")
        self.path, self.test_path = expanded(path), None if test_path is None else expanded(test_path)
        self.name = self.path.stem
        self._asked_target, self._asked_features = _names(target), _names(features)
        self.test_split, self.split, self.missing = test_split, split, missing
        self.ood_files = [expanded(other) for other in ood or []]
        self._columns: Columns | None = None
        self.mean: list[float] = []
        self.std: list[float] = []
        """``mean`` and ``std`` of each feature over the training rows; empty before setup."""

    @cached_property
    def _given(self) -> GivenSplits | None:
        return GivenSplits(self.path) if self.path.is_dir() else None

    @cached_property
    def _read(self) -> tuple[RawTable, list[str], list[str]]:
        """The table, and the names of its feature and target columns."""
        if self._given is not None:
            return self._given.table()
        raw = read_table(self.path)
        known = list(raw.columns)
        usual = [name for name in known if name not in raw.index]
        target = self._asked_target or usual[-1:]
        features = self._asked_features or [name for name in usual if name not in target]
        for setting, names in (("target", target), ("features", features)):
            for name in names:
                if name not in known:
                    columns = listed(known, most=10)
                    raise ValueError(f"{setting} must be among the columns {columns} of {self.path}, got {name}.")
        if both := set(features) & set(target):
            raise ValueError(f"features must not have the target, got {min(both)} in both.")
        if not features:
            raise ValueError(f"features must be one column or more, got none beside the target in {self.path}.")
        return raw, features, target

    @cached_property
    def target_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self._read[2])

    @property
    def columns(self) -> Columns:
        """The feature columns: those of the checkpoint, or of the table."""
        if self._columns is None:
            raw, features, _ = self._read
            self._columns = Columns.of(raw, features)
        return self._columns

    @property
    def in_features(self) -> int:
        """The number of features that a network gets."""
        return len(self.columns.names)

    @property
    def splits_test_by_seed(self) -> bool:  # type: ignore[override]
        return self._given is None and self.test_path is None

    @property
    def found(self) -> str:  # type: ignore[override]
        levels = self.columns.levels
        numbers = [name for name, of_column in levels.items() if of_column is None]
        texts = [f"{name} ({len(of_column)})" for name, of_column in levels.items() if of_column is not None]
        kinds = {"numbers": numbers, "texts": texts}
        features = "features: " + "; ".join(f"{kind} {listed(names)}" for kind, names in kinds.items() if names)
        if self.predict is not None and not self.predicts_test_examples:  # of rows that need no target
            return f"{self.path}: {counted(len(self.predict), 'row')}; {features}"
        raw, _, targets = self._read
        unused = [name for name in raw.index if name not in (*targets, *levels)]
        left_out = f"; left out, for it numbers the rows: {listed(unused)}" if unused else ""
        tests = f"; test rows, by the seed: {len(self._parts[1]):,}" if self.splits_test_by_seed else ""
        return f"{self.path}: {counted(len(raw), 'row')}; target {listed(targets)}; {features}{left_out}{tests}"

    @cached_property
    def divided_examples(self) -> str | None:
        digest = hashlib.sha256()
        for name, column in self._read[0].columns.items():
            values = column.tobytes() if column.dtype != object else "\0".join(column).encode()
            digest.update(name.encode() + b"\0" + values)
        return digest.hexdigest()[:16]

    def split_settings(self, of_holdout: bool) -> tuple[str, ...]:
        test = ("split",) if self._given is not None else ("test_split", *super().split_settings(False))
        return (*super().split_settings(True), *test) if of_holdout else () if self.test_path else test

    def setup(self, stage: str | None = None) -> None:
        if self.train is None and (stage in ("fit", "validate", None) or not self.mean):
            train, self.selection, self.calibration = self.divided(
                self._rows(self._read[0], labelled=True)[self._parts[0]]
            )
            if not self.mean:
                self._measure(train)
            self.train = self._standardised(train)
            self.selection, self.calibration = map(self._standardised, (self.selection, self.calibration))
        if stage in ("test", None) and self.test is None:
            self.test = self._standardised(self._test_rows())
            self.test_sets = {str(self.name): self.test}
            for other in self.ood_files:
                self._add_ood(other.stem, self._standardised(self._rows(self._read_other(other, "ood"))))
        if stage in ("predict", None) and self.predict is None:
            self.predict = self._standardised(self._rows_to_predict())

    def _rows_to_predict(self) -> Rows:
        """The rows to predict, whose numbers in their file are kept."""
        if self.predicts_test_examples and self.test_path is None:
            self._row_numbers: Sequence[int] = [self._read[0].lines[row] for row in self._parts[1].tolist()]
            return self._test_rows()
        if self._given is not None:
            raw = self._given.table()[0]
        else:
            raw = self._read_tests() if self.predicts_test_examples else self._read_other(self.path, "path")
        self._row_numbers = raw.lines
        return self._rows(raw, labelled=self.predicts_test_examples)

    def _read_other(self, path: Path, setting: str) -> RawTable:
        """Another table than that of training, whose columns are known."""
        texts = [name for name, levels in self.columns.levels.items() if levels is not None]
        return read_table(path, texts, setting)

    def _read_tests(self) -> RawTable:
        assert self.test_path is not None
        return self._read_other(self.test_path, "test_path")

    def _test_rows(self) -> Rows:
        if self.test_path is not None:
            return self._rows(self._read_tests(), labelled=True)
        return self._rows(self._read[0], labelled=True)[self._parts[1]]

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        """Indices of the training and of the test rows of the table."""
        count = len(self._read[0])
        if self._given is not None:
            given = self._given.rows(self.split, count)
            return torch.from_numpy(given[0]), torch.from_numpy(given[1])
        if self.test_path is not None:
            return torch.arange(count), torch.arange(0)
        test, train = stratified_split(torch.zeros(count), self.test_split, self.seed)
        for part, rows in (("test", test), ("training", train)):
            if len(rows) == 0:
                raise ValueError(f"test_split={self.test_split} leaves no {part} row of {count} in {self.path}.")
        return train, test

    def _rows(self, raw: RawTable, labelled: bool = False) -> Rows:
        """The rows of a table, not yet standardised; features are float64, and nan where there is no value."""
        features = self.columns.encoded(raw, self.missing)
        targets = []
        for name in self.target_names:
            if labelled and name not in raw.columns:
                raise ValueError(
                    f"{raw.setting} must be a table with the target {name}, got {raw.path}, which has none."
                )
            column = self._target(raw, name, labelled)
            if labelled and np.isnan(column).any():
                without = counted(int(np.isnan(column).sum()), "row")
                raise ValueError(
                    f"target must have a value in every row, got none of {name} in {without}, the first "
                    f"{raw.where(np.isnan(column))}; remove such rows."
                )
            targets.append(column)
        return Rows(features, torch.from_numpy(np.stack(targets, 1)).float())

    def _target(self, raw: RawTable, name: str, labelled: bool) -> np.ndarray:
        """A target column; nan where there is none, or, of rows to predict, none that can be read."""
        try:
            return numbers_of(raw, name, "target") if name in raw.columns else np.full(len(raw), np.nan)
        except ValueError:
            if labelled:
                raise
            return np.full(len(raw), np.nan)

    def _measure(self, train: Rows) -> None:
        """Means and standard deviations over the training rows."""
        self.mean = train.features.nanmean(0).nan_to_num(0.0).tolist()
        deviations = train.features - torch.tensor(self.mean, dtype=torch.float64)
        # A constant feature must not be divided by 0, and rounding leaves it a little above.
        stds = deviations.square().nanmean(0).sqrt().nan_to_num(0.0).tolist()
        self.std = [std if std > 1e-12 * abs(mean) else 1.0 for std, mean in zip(stds, self.mean, strict=True)]
        self.measure_targets(train.labels)

    def _standardised(self, rows: Rows) -> Rows:
        return Rows(standardised(rows.features, self.mean, self.std), rows.labels)

    def predict_names(self, start: int = 0, stop: int | None = None) -> list[str]:
        after_setup(self.predict, "predict")
        return [f"row {number}" for number in self._row_numbers[start:stop]]

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "in_features": self.in_features,
            "columns": self.columns.record(),
            "missing": self.missing,
            "mean": self.mean,
            "std": self.std,
        }

    def prepare_like(self, description: dict[str, Any], labelled: bool = True) -> None:
        """Takes over columns, targets and all units from ``description``.

        Values that are missing are the training rows' mean where training or this table asks for it.

        Raises:
            ValueError: when ``labelled`` and the targets are others, or the checkpoint was not of a table.
        """
        if "columns" not in description:
            raise ValueError(
                f"data must be of the checkpoint's kind, like {description['name']}, got the table {self.name}."
            )
        if not labelled:
            self.target_names = tuple(description["target_names"])
        super().prepare_like(description, labelled)
        self._columns = Columns(description["columns"])
        if self.missing == "refuse":
            self.missing = description["missing"]
        self.mean, self.std = description["mean"], description["std"]

    def _inputs(self, examples: Rows) -> Tensor:
        return torch.cat([examples.features, examples.labels], 1)

    def _loader(self, examples: Rows, train: bool = False) -> RowLoader:
        sampler, device = self._sampler_and_device(len(examples), train)
        return RowLoader(examples, self.batch_size if train else self.eval_batch_size, sampler, device)


def _names(columns: str | int | Sequence[str] | Sequence[int] | None) -> list[str]:
    """Names of columns, of which a setting may have one or several."""
    if columns is None:
        return []
    return [str(columns)] if isinstance(columns, str | int) else [str(column) for column in columns]
