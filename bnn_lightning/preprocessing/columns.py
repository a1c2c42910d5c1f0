"""Columns of a table as features: numbers as they are, texts one-hot, missing values by a stated rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from bnn_lightning.preprocessing.rows import RawTable, is_number

Missing = Literal["refuse", "mean"]
"""What becomes of features without a value: an error, or the training rows' mean (of texts: all of one-hot is 0)."""

MOST_LEVELS = 100  # different texts of a column; with more it is probably a name or a date


@dataclass(frozen=True)
class Columns:
    """The feature columns of a table.

    Args:
        levels: by the name of each column its texts in order, one feature for each; None where it holds numbers.
    """

    levels: Mapping[str, Sequence[str] | None]

    @classmethod
    def of(cls, raw: RawTable, names: Sequence[str]) -> Self:
        """Those of a table.

        Raises:
            ValueError: when a column of texts has too many different ones.
        """
        levels: dict[str, list[str] | None] = {}
        for name in names:
            column = raw.columns[name]
            levels[name] = None if column.dtype == np.float64 else sorted({text for text in column if text})
            if len(levels[name] or ()) > MOST_LEVELS:
                raise ValueError(
                    f"features must leave {name} out, which has {len(levels[name] or ()):,} different texts in "
                    f"{raw.path}, more than {MOST_LEVELS}: is it a name or a date?"
                )
        return cls(levels)

    @property
    def names(self) -> list[str]:
        """Of the features: that of the column, and for texts ``column=text``."""
        return [
            feature
            for name, levels in self.levels.items()
            for feature in ([name] if levels is None else [f"{name}={level}" for level in levels])
        ]

    def encoded(self, raw: RawTable, missing: Missing) -> Tensor:
        """The features of all rows, ``(rows, features)``, float64; nan where there is no value.

        Raises:
            ValueError: when a column lacks, holds something else than before, or has missing values that are refused.
        """
        parts = []
        for name, levels in self.levels.items():
            if name not in raw.columns:
                raise ValueError(
                    f"{raw.setting} must be a table with the column {name}, got {raw.path}, which has none."
                )
            column = raw.columns[name]
            is_missing = np.isnan(column) if column.dtype == np.float64 else column == ""
            if missing == "refuse" and is_missing.any():
                raise ValueError(
                    f"missing must be mean to fill values in, got refuse, and no value of {name} in "
                    f"{int(is_missing.sum()):,} rows, the first {raw.where(is_missing)}."
                )
            parts.append(_numbers(raw, name, is_missing) if levels is None else _one_hot(raw, name, levels, is_missing))
        return torch.from_numpy(np.concatenate(parts, 1))

    def record(self) -> dict[str, list[str] | None]:
        """In plain values, for a checkpoint."""
        return {name: None if levels is None else list(levels) for name, levels in self.levels.items()}


def numbers_of(raw: RawTable, name: str, setting: str) -> np.ndarray:
    """A column that must be of numbers, ``(rows,)``.

    Raises:
        ValueError: that begins with ``setting``, when it is of texts, or has an infinite number.
    """
    column = raw.columns[name]
    if column.dtype != np.float64:
        is_text = np.array([bool(text) and not is_number(text) for text in column])
        raise ValueError(
            f"{setting} must be a column of numbers, got {name}, where {raw.where(is_text)} has "
            f"{column[is_text.argmax()]!r}."
        )
    if np.isinf(column).any():
        raise ValueError(f"{setting} must be finite numbers, got an infinite {name} in {raw.where(np.isinf(column))}.")
    return column


def _numbers(raw: RawTable, name: str, is_missing: np.ndarray) -> np.ndarray:
    if is_missing.all():
        return np.full((len(raw), 1), np.nan)
    return numbers_of(raw, name, "features")[:, None]


def _one_hot(raw: RawTable, name: str, levels: Sequence[str], is_missing: np.ndarray) -> np.ndarray:
    # A file of other rows may hold numbers alone in a column that has texts elsewhere.
    texts = np.array(["" if gone else _text(cell) for cell, gone in zip(raw.columns[name], is_missing, strict=True)])
    unknown = ~np.isin(texts, ["", *levels])
    if unknown.any():
        raise ValueError(
            f"{raw.setting} must be a table whose {name} is one of {', '.join(levels)}, as in training, got "
            f"{str(texts[unknown.argmax()])!r} in {raw.where(unknown)}."
        )
    return (texts[:, None] == np.array(levels)[None]).astype(np.float64)


def _text(cell: Any) -> str:
    return f"{cell:g}" if isinstance(cell, float) else str(cell)
