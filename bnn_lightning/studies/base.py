"""What a study file says: its cells, the commands that run them, and what its report compares."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Self

import yaml

from bnn_lightning.cli import UsageError
from bnn_lightning.files import shown
from bnn_lightning.studies.checks import RESERVED, check_file


@dataclass(frozen=True)
class Cell:
    """One place of a study's table: its value on each axis by name, the flags that makes, and seeds."""

    axes: Mapping[str, str]
    flags: Mapping[str, Any]
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        return ", ".join(self.axes.values())

    def is_among(self, wanted: str | Mapping[str, str]) -> bool:
        """Whether a claim's name, or its values of some axes, are of this cell."""
        if isinstance(wanted, str):
            return self.name == wanted
        return all(self.axes.get(axis) == value for axis, value in wanted.items())


@dataclass(frozen=True)
class Task:
    """A cell with one seed: what is run, and what makes its row another's equal."""

    study: str
    cell: Cell
    seed: int
    base: Path
    test: Mapping[str, Any]
    checkpoint: str
    settings: str
    """A digest of all that was asked for: a row made with other settings is another row."""

    @property
    def key(self) -> str:
        return f"{self.cell.name}, seed {self.seed} ({self.settings})"

    @property
    def run_name(self) -> str:
        """Of the run's folders."""
        words = re.sub(r"[^a-z0-9.+]+", "-", self.cell.name.lower()).strip("-")
        return f"{self.study}_{words}_seed{self.seed}_{self.settings}"

    @property
    def fit(self) -> list[str]:
        """The words after ``bnn`` that train it."""
        words = ["fit", "--config", shown(self.base), *as_words(self.cell.flags)]
        return [*words, "--seed_everything", str(self.seed), "--name", self.run_name]

    def test_of(self, checkpoint: Path) -> list[str]:
        """The words after ``bnn`` that test a checkpoint of it."""
        return ["test", "--ckpt_path", shown(checkpoint), *as_words(self.test)]

    @property
    def command(self) -> str:
        return f"bnn {shlex.join(self.fit)}"


@dataclass(frozen=True)
class Study:
    """A study file, read and checked; a field is a key of the file.

    Args:
        path: the file.
        title: of the table.
        about: what it is, in a paragraph.
        base: a config of ``bnn fit``, beside the study file or relative to it, that all cells start from.
        set: flags for all cells, such as ``trainer.max_epochs: 20``.
        test: flags of ``bnn test`` for all cells.
        checkpoint: last or best, which is tested.
        seeds: of each cell that has none of its own.
        grid: axes of the table; a list of values of one flag, or names with the flags of each and perhaps ``seeds``.
            A cell is a value from each axis.
        cells: more cells by name, each with its flags.
        search: in the place of both, flags with ``low``, ``high`` and perhaps ``log``, or a list of choices: Optuna's
            TPE sampler draws ``trials`` cells from them, each better, it hopes, by the validation NLL.
        trials: how many cells a search has.
        not_run: cells that cannot be run, with the reason; they are named in the report.
        score: the column that the report compares.
        columns: more columns of the report.
        source: where the published figures are from.
        published: figures by column and cell.
        claims: sentences with the cells or groups of cells that they compare, each ``says``, ``higher``, ``than`` and
            perhaps ``column`` and ``within``.
        rankings: columns that the report puts the cells in order by, beside the published order.
    """

    path: Path
    title: str
    base: str
    about: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)
    test: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = "last"
    seeds: tuple[int, ...] = (0,)
    grid: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 0
    not_run: Mapping[str, str] = field(default_factory=dict)
    score: str = "accuracy"
    columns: tuple[str, ...] = ()
    source: str = ""
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    claims: tuple[Mapping[str, Any], ...] = ()
    rankings: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The study of a file.

        Raises:
            UsageError: when it is not one, in a sentence.
        """
        path = Path(path)
        try:
            found = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"study {path} cannot be read: {_reason(error)}.") from error
        try:
            check_file(found, set(cls.__dataclass_fields__) - {"path"})
            settings: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in found.items()
            }
            study = cls(path, **settings)
            study._check()
        except ValueError as error:
            raise UsageError(f"study {path}: {error}") from error
        return study

    def _check(self) -> None:
        """Whether the parts of the file fit each other."""
        if bool(self.search) == bool(self.grid or self.cells):
            raise ValueError("there must be a grid, cells or both, or else a search.")
        if self.search and self.trials < 1:
            raise ValueError(f"trials must be 1 or more for a search, got {self.trials}.")
        if self.checkpoint not in ("last", "best"):
            raise ValueError(f"checkpoint must be last or best, got {self.checkpoint}.")
        if not self.base_file.is_file():
            raise ValueError(f"base must be a config file, got {self.base}.")
        names = [cell.name for cell in self.all_cells()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"there are two cells called {sorted(twice)[0]}.")
        for name, space in self.search.items():
            typed = [as_word(choice) for choice in space] if isinstance(space, list) else []
            if twice := {one for one in typed if typed.count(one) > 1}:
                raise ValueError(f"search: {name} has {sorted(twice)[0]} twice.")
        if self.search:
            return
        for claim in self.claims:
            for side in ("higher", "than"):
                if not any(cell.is_among(claim[side]) for cell in self.all_cells()):
                    raise ValueError(f"a claim is about {claim[side]}, which is no cell.")
        for where, named in (("not_run", self.not_run), *(("published", rows) for rows in self.published.values())):
            # A figure may be published for a cell that is only listed as one that cannot be run.
            if unknown := set(named) - set(names) - set(self.not_run):
                raise ValueError(f"{where} names {sorted(unknown)[0]}, which is no cell.")

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def base_file(self) -> Path:
        return self.path.parent / self.base

    @property
    def space(self) -> str:
        """A digest of what a search can draw."""
        return _digest(self.search)

    @property
    def axes(self) -> list[str]:
        """Titles of the columns that name a cell."""
        if self.search:
            return list(self.search)
        return [self._title(axis) for axis in self.grid] or ["cell"]

    def all_cells(self) -> Iterator[Cell]:
        """Every cell of the grid in its order, then the others; of a search, none."""
        axes = [[(self._title(axis), *one) for one in self._values(axis)] for axis in self.grid]
        for chosen in product(*axes) if axes else ():
            flags: dict[str, Any] = dict(self.set)
            for _, _, more in chosen:
                flags |= more
            yield self._cell({title: name for title, name, _ in chosen}, flags)
        for name, some in self.cells.items():
            yield self._cell({self.axes[0]: str(name)}, {**self.set, **(some or {})})

    def cell_of(self, values: Mapping[str, Any]) -> Cell:
        """The cell of a search that has these values for its flags."""
        return Cell({name: as_word(value) for name, value in values.items()}, {**self.set, **values}, self.seeds[:1])

    def _title(self, axis: str) -> str:
        """The name of an axis; of a flag its last word, where that is nothing else's."""
        short = axis.split(".")[-1]
        others = [other.split(".")[-1] for other in self.grid if other != axis]
        return axis if isinstance(self.grid[axis], dict) or short in (*RESERVED, *others) else short

    def _values(self, axis: str) -> list[tuple[str, dict[str, Any]]]:
        """What each value of an axis is called, and its flags."""
        values = self.grid[axis]
        if isinstance(values, dict):
            return [(str(name), flags or {}) for name, flags in values.items()]
        return [(f"{self._title(axis)} {value}", {axis: value}) for value in values]

    def _cell(self, axes: Mapping[str, str], settings: Mapping[str, Any]) -> Cell:
        flags = {name: value for name, value in settings.items() if name != "seeds"}
        return Cell(axes, flags, tuple(settings.get("seeds", self.seeds)))

    def tasks(self) -> list[Task]:
        """What there is to run, the first seed of every cell first."""
        cells = [cell for cell in self.all_cells() if cell.name not in self.not_run]
        longest = max((len(cell.seeds) for cell in cells), default=0)
        return [
            self.task(cell, cell.seeds[place]) for place in range(longest) for cell in cells if place < len(cell.seeds)
        ]

    def task(self, cell: Cell, seed: int) -> Task:
        asked = [self.base_settings, cell.flags, self.test, self.checkpoint]
        return Task(self.name, cell, seed, self.base_file, self.test, self.checkpoint, _digest(asked))

    @cached_property
    def base_settings(self) -> Any:
        """The base as it was when it was first asked for; a study whose base changes meanwhile is another study."""
        return self.read_base()

    def read_base(self) -> Any:
        """The base as it is now."""
        try:
            return yaml.safe_load(self.base_file.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"base {self.base_file} cannot be read: {_reason(error)}.") from error


def _digest(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def as_words(flags: Mapping[str, Any]) -> list[str]:
    """Flags as they are typed."""
    return [word for name, value in flags.items() for word in (f"--{name}", as_word(value))]


def as_word(value: Any) -> str:
    """A flag's value as it is typed."""
    return value if isinstance(value, str) else json.dumps(value)
