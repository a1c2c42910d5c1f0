"""Study files: their cells, the commands that run them, and what the report compares."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Self

import yaml

from bnn_lightning.cli import UsageError
from bnn_lightning.cli.yaml_files import PlainLoader, fault_in
from bnn_lightning.files import relative_to_cwd
from bnn_lightning.studies.checks import RESERVED, check_file
from bnn_lightning.training.runs import Run
from bnn_lightning.wording import one_line


@dataclass(frozen=True)
class Cell:
    """A combination of settings that a study runs with several seeds: one line of its table.

    Args:
        axes: the name of the cell's value on each axis of the study.
        flags: the settings of ``bnn fit`` that differ from the base.
        seeds: one run each.
        members: networks that each run trains and joins, see :attr:`Task.members`.
    """

    axes: Mapping[str, str]
    flags: Mapping[str, Any]
    seeds: tuple[int, ...]
    members: int = 1

    @property
    def name(self) -> str:
        return ", ".join(self.axes.values())

    def matches(self, selection: str | Mapping[str, str]) -> bool:
        """Whether a claim selects this cell, by its name or by values on some axes."""
        if isinstance(selection, str):
            return self.name == selection
        return all(self.axes.get(axis) == value for axis, value in selection.items())


@dataclass(frozen=True)
class Task:
    """One run of a study: a cell with a seed; two tasks of the same ``key`` would give the same row."""

    study: str
    cell: Cell
    seed: int
    base: Path
    test: Mapping[str, Any]
    checkpoint: str
    kind: str
    settings: str
    """A digest of all settings; a row that was made with other settings does not belong to this task."""
    members: tuple["Task", ...] = ()
    """Of an ensemble of M, the tasks that train its networks, with seeds from M * seed on. They are those of the cell
    with the same flags and no ``members``, where there is one, so that no network is trained twice."""

    @property
    def key(self) -> str:
        return f"{self.cell.name}, seed {self.seed} ({self.settings})"

    @property
    def run_name(self) -> str:
        """The name of the run's folders."""
        words = re.sub(r"[^a-z0-9.+]+", "-", self.cell.name.lower()).strip("-")
        return f"{self.study}_{words}_seed{self.seed}_{self.settings}"

    @property
    def fit_arguments(self) -> list[str]:
        """The command-line arguments of ``bnn`` that run it; ``{seed}`` in a flag's value is the run's seed."""
        flags = as_arguments(self.cell.flags)
        arguments = ["simulate" if self.kind == "acquisition" else "fit", "--config", relative_to_cwd(self.base)]
        arguments += [word.replace("{seed}", str(self.seed)) for word in flags]
        return [*arguments, "--seed_everything", str(self.seed), "--name", self.run_name]

    def test_arguments(self, checkpoint: Path) -> list[str]:
        """The command-line arguments of ``bnn`` that test a checkpoint of it."""
        return ["test", "--ckpt_path", relative_to_cwd(checkpoint), *as_arguments(self.test)]

    def ensemble_arguments(self, checkpoints: Sequence[Path], output: Path) -> list[str]:
        """The command-line arguments of ``bnn`` that join its members."""
        first, *others = map(relative_to_cwd, checkpoints)
        return ["ensemble", "--ckpt_path", first, "--members", json.dumps(others), "--output", relative_to_cwd(output)]

    @property
    def command(self) -> str:
        """The command that trains it; of an ensemble the one that joins members, in their first folders."""
        words = self.fit_arguments
        if self.members:
            files = [Run(Path(), task.run_name, 0).checkpoints / f"{self.checkpoint}.ckpt" for task in self.members]
            words = self.ensemble_arguments(files, files[0].with_name(f"{self.joined_name}.ckpt"))
        return f"bnn {shlex.join(words)}"

    @property
    def joined_name(self) -> str:
        """What the file of its members is called, beside that of the first."""
        return f"ensemble_of_{len(self.members)}_{self.checkpoint}"


@dataclass(frozen=True)
class Study:
    """A study file, read and checked; each field but ``path`` is a key of the file.

    Args:
        path: the file.
        title: of the table.
        about: a paragraph that describes the study.
        kind: training, of which a run is one ``bnn fit`` and one ``bnn test``; or acquisition, of ``bnn simulate``.
        base: a config of ``bnn fit`` or ``bnn simulate``, beside the study file or relative to it, that all cells start
            from.
        set: flags for all cells, such as ``trainer.max_epochs: 20``.
        test: flags of ``bnn test`` for all cells.
        checkpoint: last or best, which is tested.
        seeds: of each cell that has none of its own.
        grid: axes of the table; each is a list of values of one flag, or names with the flags of each and perhaps
            ``seeds``, or ``members: 5`` for an ensemble of so many. There is a cell for each combination of values.
        cells: more cells by name, each with its flags.
        search: instead of grid and cells, flags with ``low``, ``high`` and perhaps ``log``, or a list of choices:
            Optuna's TPE sampler draws ``trials`` cells from them, looking for a low validation NLL.
        trials: how many cells a search has.
        not_run: cells that cannot be run, with the reason; the report names them.
        score: the column that the report compares.
        columns: more columns of the report.
        against: a column of costs, such as seconds; the figure then shows the score against it.
        at: of an acquisition, numbers of labels whose accuracy and NLL the report shows.
        source: where the published figures are from.
        published: figures by column and cell.
        claims: sentences with the cells or groups of cells that they compare, each with ``says``, ``higher``,
            ``than`` and perhaps ``column`` and ``within``.
        chosen: an axis, and the column ``by`` which the report chooses one of its values for each seed; perhaps only
            ``among`` some of them; perhaps with ``published`` figures of the score, by source and cell of other axes.
        rankings: columns by which the report ranks the cells, beside the published ranking.
    """

    path: Path
    title: str
    base: str
    about: str = ""
    kind: str = "training"
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
    against: str = ""
    at: tuple[int, ...] = ()
    source: str = ""
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    claims: tuple[Mapping[str, Any], ...] = ()
    chosen: Mapping[str, Any] = field(default_factory=dict)
    rankings: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Reads and checks a study file.

        Raises:
            UsageError: when the file cannot be read or is not a valid study; the message says why.
        """
        path = Path(path)
        content = _read_yaml("study", path)
        try:
            check_file(content, set(cls.__dataclass_fields__) - {"path"})
            settings: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
            }
            study = cls(path, **settings)
            study._check()
        except ValueError as error:
            raise UsageError(f"study {path}: {error}") from error
        return study

    def _check(self) -> None:
        """Raises ValueError where parts of the file contradict each other."""
        if bool(self.search) == bool(self.grid or self.cells):
            raise ValueError("there must be a grid, cells or both, or else a search.")
        if self.kind not in ("training", "acquisition"):
            raise ValueError(f"kind must be training or acquisition, got {self.kind}.")
        if self.kind == "acquisition":
            if given := next((name for name in ("search", "test", "rankings") if getattr(self, name)), None):
                raise ValueError(f"{given} must be left out of an acquisition, which tests in each round.")
            if any(cell.members > 1 for cell in self.all_cells()):
                raise ValueError("members must be left out of an acquisition, whose network has model.members.")
        elif self.at:
            raise ValueError("at is for kind: acquisition, whose rounds have numbers of labels.")
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
            choices = [as_argument(choice) for choice in space] if isinstance(space, list) else []
            if twice := {choice for choice in choices if choices.count(choice) > 1}:
                raise ValueError(f"search: {name} has {sorted(twice)[0]} twice.")
        if self.search:
            return
        for claim in self.claims:
            for side in ("higher", "than"):
                if not any(cell.matches(claim[side]) for cell in self.all_cells()):
                    raise ValueError(f"a claim is about {claim[side]}, which is no cell.")
        if self.chosen:
            axis = self.chosen["axis"]
            values = {cell.axes.get(axis) for cell in self.all_cells()}
            if axis not in self.axes or (unknown := set(map(str, self.chosen.get("among", []))) - values):
                name = axis if axis not in self.axes else sorted(unknown)[0]
                raise ValueError(f"chosen names {name}, which is no {'axis' if name == axis else f'value of {axis}'}.")
        for where, named in (("not_run", self.not_run), *(("published", values) for values in self.published.values())):
            # Results may be published for a cell that is listed in not_run.
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
        """A digest of the space that a search draws from."""
        return _digest(self.search)

    @property
    def axes(self) -> list[str]:
        """Names of the table's columns that identify a cell."""
        if self.search:
            return list(self.search)
        return [self._title(axis) for axis in self.grid] or ["cell"]

    def all_cells(self) -> Iterator[Cell]:
        """Every cell of the grid in its order, then those of ``cells``; a search has none."""
        axes = [[(self._title(axis), *value) for value in self._values(axis)] for axis in self.grid]
        for combination in product(*axes) if axes else ():
            flags: dict[str, Any] = dict(self.set)
            for _, _, flags_of_value in combination:
                flags |= flags_of_value
            yield self._cell({title: name for title, name, _ in combination}, flags)
        for name, flags_of_cell in self.cells.items():
            yield self._cell({self.axes[0]: str(name)}, {**self.set, **(flags_of_cell or {})})

    def cell_of(self, values: Mapping[str, Any]) -> Cell:
        """The cell of a search with these values of its flags."""
        axes = {name: as_argument(value) for name, value in values.items()}
        return Cell(axes, {**self.set, **values}, self.seeds[:1])

    def _title(self, axis: str) -> str:
        """The name of an axis; for a flag its part after the last dot, unless another axis or column has that name."""
        short = axis.split(".")[-1]
        others = [other.split(".")[-1] for other in self.grid if other != axis]
        return axis if isinstance(self.grid[axis], dict) or short in (*RESERVED, *others) else short

    def _values(self, axis: str) -> list[tuple[str, dict[str, Any]]]:
        """The name and the flags of each value of an axis."""
        values = self.grid[axis]
        if isinstance(values, dict):
            return [(str(name), flags or {}) for name, flags in values.items()]
        return [(f"{self._title(axis)} {value}", {axis: value}) for value in values]

    def _cell(self, axes: Mapping[str, str], settings: Mapping[str, Any]) -> Cell:
        flags = {name: value for name, value in settings.items() if name not in ("seeds", "members")}
        return Cell(axes, flags, tuple(settings.get("seeds", self.seeds)), settings.get("members", 1))

    def tasks(self) -> list[Task]:
        """All runs: first those of every cell's first seed, then those of the second seeds, and so on."""
        cells = [cell for cell in self.all_cells() if cell.name not in self.not_run]
        rounds = range(max((len(cell.seeds) for cell in cells), default=0))
        return [self.task(cell, cell.seeds[index]) for index in rounds for cell in cells if index < len(cell.seeds)]

    def task(self, cell: Cell, seed: int) -> Task:
        settings = [self.base_settings, cell.flags, self.test, self.checkpoint]
        members: tuple[Task, ...] = ()
        if cell.members > 1:
            settings.append(cell.members)
            single = replace(cell, members=1)
            of_one = (other for other in self.all_cells() if other.members == 1 and other.flags == cell.flags)
            shared = next(of_one, single)
            members = tuple(self.task(shared, seed * cell.members + place) for place in range(cell.members))
        digest = _digest(settings)
        return Task(
            self.name, cell, seed, self.base_file, self.test, self.checkpoint, self.kind, digest, members=members
        )

    @cached_property
    def base_settings(self) -> Any:
        """The content of the base file when it was first read; a run with a changed base is another task."""
        return self.read_base()

    def read_base(self) -> Any:
        """The present content of the base file."""
        return _read_yaml("base", self.base_file)


def _read_yaml(what: str, path: Path) -> Any:
    """The content of a file; raises UsageError where it cannot be read, and calls it ``what`` then."""
    try:
        text = path.read_text("utf-8")
        fault = fault_in(text)
        content = None if fault else yaml.load(text, PlainLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UsageError(f"{what} {path} cannot be read: {reason}.") from error
    if fault:
        raise UsageError(f"{what} {path}: it {fault}.")
    return content


def _digest(settings: Any) -> str:
    return hashlib.sha256(json.dumps(_in_order(settings)).encode()).hexdigest()[:8]


def _in_order(settings: Any) -> Any:
    """The same settings with sorted keys; JSON would refuse to sort a mapping whose keys are texts and numbers."""
    if isinstance(settings, Mapping):
        keys = sorted(settings, key=lambda key: (type(key).__name__, key))
        return {key: _in_order(settings[key]) for key in keys}
    return [_in_order(inner) for inner in settings] if isinstance(settings, list) else settings


def as_arguments(flags: Mapping[str, Any]) -> list[str]:
    """Flags and values as command-line arguments."""
    return [argument for name, value in flags.items() for argument in (f"--{name}", as_argument(value))]


def as_argument(value: Any) -> str:
    """A flag's value as a command-line argument."""
    return value if isinstance(value, str) else json.dumps(value)
