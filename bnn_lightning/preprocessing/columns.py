"""Columns of a table as features: numbers as they are, texts one-hot, missing values by a stated rule."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from bnn_lightning.preprocessing.rows import MISSING, TRUTHS, RawTable, number_in, texts_of
from bnn_lightning.wording import counted

Missing = Literal["refuse", "mean"]
"""What becomes of features without a value: an error, or the training rows' mean (of texts: all of one-hot is 0)."""

MOST_LEVELS = 100  # different texts of a column; with more, or with one for three rows, it is probably a name or a date
_SURELY_FEW = 10  # which short tables may have
_DECIMAL_COMMA = re.compile(r"[+-]?\d[\d.]*,\d+")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_LARGEST = float(torch.finfo(torch.float32).max)
_MOSTLY = 0.9  # of the cells of a column; the others are what is wrong in it


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
            ValueError: when a column of texts has too many different ones, or one holds neither numbers nor texts.
        """
        levels: dict[str, list[str] | None] = {}
        for name in names:
            if name in raw.neither:
                raise ValueError(
                    f"features must be columns of numbers or of texts, got {name} of {raw.path}, whose cells are "
                    f"{raw.neither[name]}; give each number a column of its own, or leave it out."
                )
            column = raw.columns[name]
            levels[name] = None if column.dtype == np.float64 else sorted({text for text in column if text})
            if levels[name] is not None:
                _check_texts(raw, name, len(levels[name] or ()))
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
        if lacking := next((name for name in self.levels if name not in raw.columns), None):
            raise ValueError(
                f"{raw.setting} must be a table with the column {lacking}, got {raw.path}, which has none."
            )
        known = {name: _as_trained(raw.columns[name], levels) for name, levels in self.levels.items()}
        raw = replace(raw, columns=known)
        parts = []
        for (name, levels), column in zip(self.levels.items(), known.values(), strict=True):
            is_missing = np.isnan(column) if column.dtype == np.float64 else column == ""
            if missing == "refuse" and is_missing.any():
                gap = (
                    f"{name} has no value in {counted(int(is_missing.sum()), 'row')}, the first {raw.where(is_missing)}"
                )
                if raw.setting == "rows":  # of a program, which has no setting to put right
                    raise ValueError(
                        f"rows must have a value in each column, because the network was trained with missing: refuse: "
                        f"{gap}; fill the cells, or train with --data.missing mean."
                    )
                raise ValueError(
                    f"missing must be mean where cells are empty or say NA, None, null, nan or ?, or such rows be "
                    f"removed: {gap}; where such a word is a category, write another."
                )
            parts.append(_numbers(raw, name, is_missing) if levels is None else _one_hot(raw, name, levels))
        return torch.from_numpy(np.concatenate(parts, 1))

    def record(self) -> dict[str, list[str] | None]:
        """In plain values, for a checkpoint."""
        return {name: None if levels is None else list(levels) for name, levels in self.levels.items()}


def _as_trained(column: np.ndarray, levels: Sequence[str] | None) -> np.ndarray:
    """A column as training would have read it, each cell by itself.

    A text that training had is that text, also None or NA; another one of these words is no value, "". Truth values
    may be written in large or small letters.
    """
    if levels is None and column.dtype == np.float64:
        return column
    spelt = {"": "", **dict.fromkeys(MISSING, ""), **{each.lower(): each for each in levels or () if _is_truth(each)}}
    spelling = {text: spelt.get(text.lower(), text) for text in set(texts_of(column))}
    spelling |= {level: level for level in levels or ()}
    return np.array([spelling[text] for text in texts_of(column)], dtype=object)


def _is_truth(text: str) -> bool:
    return text.lower() in TRUTHS


def _check_texts(raw: RawTable, name: str, different: int) -> None:
    """Refuses a column of texts that was hardly meant as one: of numbers but for a few cells, of names or of dates."""
    limit = min(MOST_LEVELS, max(_SURELY_FEW, len(raw) // 3))
    texts = raw.columns[name]
    _refuse_commas(texts, name, "features", raw)
    if different <= _SURELY_FEW:
        return
    filled = np.array([bool(text) for text in texts])
    bad = np.array([bool(text) and number_in(text) is None for text in texts])
    if 0 < bad.sum() <= (1 - _MOSTLY) * filled.sum():
        raise ValueError(
            f"features must be columns of numbers or of texts, got {name}, whose cells are numbers but for "
            f"{int(bad.sum()):,}, the first {texts[bad.argmax()]!r} in {raw.where(bad)}; put them right, or leave it "
            "out."
        )
    if different > limit:
        # Texts that are all numbers come from a Parquet file alone: a program wrote them as texts.
        meant = "is it a name or a date?" if bad.any() else "if they are numbers, save them as such."
        raise ValueError(
            f"features must leave {name} out, which has {different:,} different texts in the {len(raw):,} rows of "
            f"{raw.path}, more than {limit}, such as {texts[filled.argmax()]!r}: {meant}"
        )


def _refuse_commas(texts: np.ndarray, name: str, setting: str, raw: RawTable) -> None:
    """Refuses texts most of which are numbers with commas, between decimals or thousands."""
    is_text = np.array([bool(text) and number_in(text) is None for text in texts])
    commas = np.array([bool(_DECIMAL_COMMA.fullmatch(text) or _THOUSANDS.fullmatch(text)) for text in texts])
    if not commas.any() or commas.sum() < _MOSTLY * is_text.sum():
        return
    such_as = f"such as {texts[commas.argmax()]} in {raw.where(commas)}"
    if all(_THOUSANDS.fullmatch(text) for text in texts[commas]):
        raise ValueError(
            f"{setting} must have numbers without separators of thousands, got {name} with commas, {such_as}; save the "
            "table without them, or with decimal points where they stand for these."
        )
    raise ValueError(
        f"{setting} must have decimal points, got {name} with decimal commas, {such_as}; save the table with points."
    )


def numbers_of(raw: RawTable, name: str, setting: str) -> np.ndarray:
    """A column that must be of numbers, ``(rows,)``.

    Raises:
        ValueError: that begins with ``setting``, when it is of texts, or has a number that float32 does not have.
    """
    column = raw.columns[name]
    if column.dtype != np.float64 and set(column) <= {"", *TRUTHS.values()}:
        return np.array([{"False": 0.0, "True": 1.0}.get(text, np.nan) for text in column])
    if column.dtype != np.float64:
        _refuse_commas(column, name, setting, raw)
        is_text = np.array([bool(text) and number_in(text) is None for text in column])
        if is_text.any():
            raise ValueError(
                f"{setting} must be a column of numbers, got {name}, where {raw.where(is_text)} has "
                f"{column[is_text.argmax()]!r}."
            )
        # Numbers as texts, which a program or a Parquet file may have.
        column = np.array([float(text) if text else np.nan for text in column])
    if np.isinf(column).any():
        raise ValueError(f"{setting} must be finite numbers, got an infinite {name} in {raw.where(np.isinf(column))}.")
    if (is_large := np.abs(column) > _LARGEST).any():
        raise ValueError(
            f"{setting} must be numbers up to {_LARGEST:.2g}, got {column[is_large][0]:g} as {name} in "
            f"{raw.where(is_large)}."
        )
    return column


def _numbers(raw: RawTable, name: str, is_missing: np.ndarray) -> np.ndarray:
    if is_missing.all():
        return np.full((len(raw), 1), np.nan)
    return numbers_of(raw, name, "features")[:, None]


def _one_hot(raw: RawTable, name: str, levels: Sequence[str]) -> np.ndarray:
    texts = raw.columns[name]
    unknown = ~np.isin(texts, ["", *levels])
    if unknown.any():
        raise ValueError(
            f"{raw.setting} must be a table whose {name} is one of {', '.join(levels)}, as in training, got "
            f"{str(texts[unknown.argmax()])!r} in {raw.where(unknown)}."
        )
    return (texts[:, None] == np.array(levels)[None]).astype(np.float64)
