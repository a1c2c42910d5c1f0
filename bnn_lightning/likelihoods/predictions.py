"""Predictions: what is said of some examples, as arrays, one by one, and as columns of a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
from torch import Tensor

Single = TypeVar("Single")


@dataclass(frozen=True, eq=False, repr=False)
class Predictions(Generic[Single]):
    """What is said of n examples, in their order. ``p[3]`` is what is said of one, ``p[2:5]`` of some; ``len(p)`` is n.

    In a subclass each field that is an array has the examples along its first axis, and any other is about all of them.

    Args:
        files: names of the examples, such as their files; None where they have none.
        labels: what is known of the truth, ``(n, ...)``: classes, -1 where not known, or numbers, nan where not known;
            None where nothing is.
    """

    files: np.ndarray | None
    labels: np.ndarray | None

    def single(self, index: int) -> Single:
        """What is said of one example."""
        raise NotImplementedError

    def columns(self) -> dict[str, list]:
        """The columns of the table that ``bnn predict`` writes: numbers of six digits, texts, None for no value."""
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        """How many examples were predicted as what; empty where predictions are no classes."""
        return {}

    def kinds(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, type]:
        """Of each of the :meth:`columns` int, float or str, by its values; None is of any kind."""
        return {name: kind_of_column(values) for name, values in columns.items()}

    def rows(self) -> list[dict[str, Any]]:
        """The same columns as a dictionary for each example."""
        columns = self.columns()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def to_pandas(self) -> Any:
        """The same columns as a DataFrame; whole numbers are of the type Int64, which has a word for no value.

        Raises:
            ImportError: when pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("to_pandas() needs pandas, which is not installed: pip install pandas.") from None
        columns = self.columns()
        whole = [name for name, kind in self.kinds(columns).items() if kind is int]
        return pandas.DataFrame(columns).astype(dict.fromkeys(whole, "Int64"))

    def __len__(self) -> int:
        return len(self._arrays()[0])

    @overload
    def __getitem__(self, index: int) -> Single: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Self: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index must be below {len(self)}, the number of predictions, got {index}.")
            return self.single(int(index))
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: part[index] for name, part in values.items() if isinstance(part, np.ndarray)})

    def __iter__(self) -> Iterator[Single]:
        return (self.single(index) for index in range(len(self)))

    def __repr__(self) -> str:
        shown = [f"  {self.single(index)}" for index in range(min(len(self), 5))]
        more = [f"  ... {len(self) - 5:,} more"] if len(self) > 5 else []
        count = f"{len(self):,} prediction{'' if len(self) == 1 else 's'}"
        return "\n".join([f"{type(self).__name__}: {count}", *shown, *more])

    def _arrays(self) -> list[np.ndarray]:
        values = [getattr(self, field.name) for field in fields(self)]
        return [value for value in values if isinstance(value, np.ndarray)]

    def _file_column(self) -> dict[str, list]:
        return {} if self.files is None else {"file": self.files.tolist()}


@dataclass(frozen=True, eq=False, repr=False)
class Summaries(Predictions[dict[str, Any]]):
    """Of a likelihood without predictions of its own: every entry of its summary that is one number for each example.

    Args:
        values: ``(n, entries)``, float64.
        names: of the entries.
    """

    values: np.ndarray
    names: tuple[str, ...]

    def single(self, index: int) -> dict[str, Any]:
        return dict(zip(self.names, self.values[index].tolist(), strict=True))

    def columns(self) -> dict[str, list]:
        return self._file_column() | {
            name: six_digits(values) for name, values in zip(self.names, self.values.T, strict=True)
        }


def as_array(values: Tensor) -> np.ndarray:
    """A tensor as an array: of float64, or where it is not of floats of its own type."""
    return (values.double() if values.is_floating_point() else values).cpu().numpy()


def names_array(names: Sequence[str] | None) -> np.ndarray | None:
    """Names as an array, for :attr:`Predictions.files`."""
    return None if names is None else np.array(list(names), dtype=object)


def six_digits(values: np.ndarray) -> list[float]:
    """Numbers with six significant digits."""
    return [float(f"{value:.6g}") for value in values.tolist()]


def six_decimals(values: np.ndarray) -> list[float]:
    """Probabilities with six decimals."""
    return [round(value, 6) for value in values.tolist()]


def kind_of_column(values: Sequence[Any]) -> type:
    """What a column of a table is of: int, float or str, by its values that are not None; str where all are."""
    kinds = {type(value) for value in values if value is not None}
    return int if kinds == {int} else float if kinds and kinds <= {int, float} else str
