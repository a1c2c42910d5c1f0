"""Runs a study: takes its tasks from the queue one after another, and writes their rows."""

import fnmatch
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import Trial

from bnn_lightning.cli import UsageError, first_error
from bnn_lightning.files import as_word, locked, relative_to_cwd
from bnn_lightning.studies import rows
from bnn_lightning.studies.base import Study, Task
from bnn_lightning.studies.one_run import run_task
from bnn_lightning.studies.queue import Queue
from bnn_lightning.studies.search_space import all_values, decoded, distribution_of, encoded


class Runner:
    """Runs the tasks of a study and writes their rows.

    Args:
        study: to run.
        results: the folder of its CSV file.
        storage: of Optuna: a journal file or the URL of a database; None: a journal file in lightning_logs/studies.
        say: prints a line.
    """

    def __init__(self, study: Study, results: Path, storage: str | None, say: Callable[[str], None]):
        self.study, self.file, self.say = study, results / f"{study.name}.csv", say
        self.logs = Path("lightning_logs") / "studies"
        self._retried: set[str] = set()
        """Keys of the failed runs that are to be run again."""
        self._overhead_seconds: list[float] = []
        """For each run so far, the seconds outside training epochs: data, calibration, test."""
        # Optuna fixes the space of a search: with another space it is another Optuna study, which takes over the rows.
        name = f"{study.name}-{study.space}" if study.search else study.name
        self.queue = Queue(name, storage or str(self.logs / f"{study.name}.journal"), self.logs)

    def run(self, only: str = "*", retry: bool = False, retake: bool = False) -> int:
        """Runs what has no row yet, and returns the number of failed runs.

        Args:
            only: a pattern of the names of cells.
            retry: whether failed runs are run again.
            retake: whether unfinished runs of other machines are run again.
        """
        with self.queue.at_work():
            keys = self._run_search(retry, retake) if self.study.search else self._run_grid(only, retry, retake)
        self._write()
        failed = {key: row["failed"] for key, row in self._rows().items() if key in keys and row.get("failed")}
        for key, reason in failed.items():
            self.say(f"failed: {key}: {reason}")
        if hosts := self.queue.running_hosts():
            self.say(
                f"{len(hosts)} still running on {', '.join(sorted(set(hosts)))}; "
                "--retake runs here what a machine has begun and will not finish."
            )
        self.say(f"Rows: {relative_to_cwd(self.file)}; next: bnn study {as_word(self.study.path)} --report")
        return len(failed)

    def _run_grid(self, only: str, retry: bool, retake: bool) -> Collection[str]:
        """Runs a grid and returns the keys of its runs."""
        tasks = _tasks(self.study, only)
        with locked(self.logs / f"{self.study.name}.lock"):
            self.queue.fill(tasks, self._rows(), retry, retake)
        if retry:
            self._retried = {key for key, row in self._rows().items() if row.get("failed")}
        while (trial := self.queue.take(tasks)) is not None:
            self._finish(trial, tasks[trial.user_attrs["key"]], tasks)
        return tasks

    def _run_search(self, retry: bool, retake: bool) -> Collection[str]:
        """Runs a search and returns the keys of its trials."""
        spaces = {name: distribution_of(space) for name, space in self.study.search.items()}
        with locked(self.logs / f"{self.study.name}.lock"):
            for key, (values, row) in self._tried().items():
                search_values = {name: encoded(values[name], spaces[name]) for name in spaces}
                if not row.get("failed") and key not in self.queue.rows():
                    self.queue.add(key, row, search_values, spaces)
                elif row.get("failed") and retry:
                    self._retried.add(key)
                    self.queue.enqueue(search_values)
        self.queue.enqueue_lost(retake)  # retakes what other machines have begun before now, not what they begin later
        while True:
            self.queue.enqueue_lost(retake=False)
            done = {key for key, (_, row) in self._tried().items() if not _is_left(row, key in self._retried)}
            if len(done) + len(self.queue.running_hosts()) >= self._num_trials:
                return self._tried()
            trial = self.queue.ask(spaces)
            task = self._task({name: decoded(trial.params[name], spaces[name]) for name in spaces})
            taken = done | self.queue.running_keys()
            if task.key not in taken:
                trial.set_user_attr("key", task.key)
                self._finish(trial, task, {})
                continue
            # Values that were drawn before are not run again. In a finite space, values that were not drawn come next.
            self.queue.drop(trial)
            possible = all_values(self.study.search)
            untried = [values for values in possible if self._task(values).key not in taken]
            if untried:
                self.queue.enqueue({name: encoded(untried[0][name], spaces[name]) for name in spaces})
            elif possible:
                return self._tried()

    @property
    def _num_trials(self) -> int:
        """The number of trials of a search: those that the study asks for, or all of a smaller finite space."""
        return min(self.study.trials, len(all_values(self.study.search)) or self.study.trials)

    def _task(self, values: Mapping[str, Any]) -> Task:
        """The task of a search with these values of its flags."""
        cell = self.study.cell_of(values)
        return self.study.task(cell, cell.seeds[0])

    def _tried(self) -> dict[str, tuple[dict[str, Any], rows.Row]]:
        """The values and the row of each trial that was run with the study's present settings, by key."""
        tried = ((key, rows.trial_values(self.study, row), row) for key, row in self._rows().items())
        return {key: (values, row) for key, values, row in tried if values is not None}

    def _finish(self, trial: Trial, task: Task, tasks: Mapping[str, Task]) -> None:
        """Runs a task, writes its row, and says what came out and how much is left of ``tasks``."""
        if self.study.read_base() != self.study.base_settings:
            raise UsageError(
                f"{relative_to_cwd(self.study.base_file)} has changed while {relative_to_cwd(self.study.path)} ran, "
                "and rows of both would be mixed up; the same command runs it as it is now."
            )
        start = time.monotonic()
        row = run_task(task, self.logs / self.study.name, self.say)
        self.queue.finish(trial, row)
        self._write()
        finished = self._rows()
        self._retried.discard(task.key)
        left = [key for key in tasks if _is_left(finished.get(key), key in self._retried)]
        outcome = row.get("failed") or _summary(row)
        elapsed = time.monotonic() - start
        self._overhead_seconds.append(max(0.0, elapsed - float(row.get("seconds") or 0)))
        line = f"{task.cell.name}, seed {task.seed}: {outcome}; {_duration(elapsed)}"
        count = f"{len(tasks) - len(left)}/{len(tasks)}" if tasks else f"{len(self._tried())}/{self._num_trials}"
        self.say(f"[{count}] {line}{self._estimate(tasks, finished, left)}")

    def _estimate(self, tasks: Mapping[str, Task], finished: Mapping[str, rows.Row], left: Collection[str]) -> str:
        """How long the rest will take: for each run, the mean of its cell's other seeds, or of all runs."""
        by_cell: dict[str, list[float]] = {}
        for key, task in tasks.items():
            if finished.get(key, {}).get("seconds"):
                by_cell.setdefault(task.cell.name, []).append(float(finished[key]["seconds"]))
        if not by_cell or not left:
            return ""
        mean = statistics.mean(seconds for of_cell in by_cell.values() for seconds in of_cell)
        training = sum(statistics.mean(by_cell.get(tasks[key].cell.name, [mean])) for key in left)
        total = training + len(left) * statistics.mean(self._overhead_seconds)
        return f"; {len(left)} left, about {_duration(total)}"

    def _rows(self) -> dict[str, rows.Row]:
        """The rows of the file and of the storage by key; that of a failed run only if there is no other."""
        by_key = {rows.key_of(self.study, row): row for row in rows.read(self.file)}
        for key, row in self.queue.rows().items():
            if not row.get("failed") or by_key.get(key, row).get("failed"):
                by_key[key] = row
        return by_key

    def _write(self) -> None:
        with locked(self.logs / f"{self.study.name}.lock"):
            rows.write(self.file, self.study, self._rows().values())


def dry_run(study: Study, results: Path, only: str, retry: bool, say: Callable[[str], None]) -> int:
    """Prints the commands of the runs that have no row yet.

    Returns:
        The number of cells whose settings ``bnn fit`` would refuse before it reads any data.
    """
    if study.search:
        say(f"{study.name}: {study.trials} trials of {', '.join(study.search)}, from {study.base}")
        return 0
    tasks = _tasks(study, only)
    finished = {rows.key_of(study, row): row for row in rows.read(results / f"{study.name}.csv")}
    left = [task for key, task in tasks.items() if _is_left(finished.get(key), retry)]
    for number, task in enumerate(left, start=1):
        say(f"[{number}] {task.command}")
    for name, reason in study.not_run.items():
        say(f"not run: {name}: {reason}")
    if len(left) < len(tasks):
        failed = sum(bool(finished[key].get("failed")) for key in tasks if key in finished)
        hint = f", {failed} of them failed: --retry runs those again" if failed and not retry else ""
        say(f"{len(tasks) - len(left)} of {len(tasks)} runs have their row{hint}.")
    by_cell = {task.cell.name: task.fit_arguments for task in left}
    refused = {cell: reason for cell, arguments in by_cell.items() if (reason := first_error(arguments))}
    for cell, reason in refused.items():
        say(f"will fail: {cell}: {reason}")
    return len(refused)


def _tasks(study: Study, only: str) -> dict[str, Task]:
    """The tasks of the cells whose names match the pattern ``only``, by key.

    Raises:
        UsageError: when there are none.
    """
    tasks = {task.key: task for task in study.tasks() if fnmatch.fnmatch(task.cell.name, only)}
    if not tasks:
        names = ", ".join(dict.fromkeys(task.cell.name for task in study.tasks()))
        raise UsageError(f"--only {only} fits none of {names}.")
    return tasks


def _is_left(row: rows.Row | None, retry: bool) -> bool:
    """Whether a run with this row, if any, is still to be done."""
    return row is None or (retry and bool(row.get("failed")))


def _summary(row: Mapping[str, Any]) -> str:
    """Accuracy or NLL, elbo/N and caveats of a row, for the screen."""
    accuracy = row.get("accuracy")
    parts = [f"nll {float(row['nll']):.4f}" if accuracy is None else f"{100 * float(accuracy):.2f} %"]
    if row.get("elbo_per_n") is not None:
        parts.append(f"elbo/N {float(row['elbo_per_n']):.3f}")
    return ", ".join(parts + ([str(row["caveats"])] if row["caveats"] else []))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
