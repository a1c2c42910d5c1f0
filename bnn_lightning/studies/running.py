"""``bnn study``: runs what a study file asks for, one ``bnn fit`` and one ``bnn test`` at a time."""

import fnmatch
import json
import math
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from bnn_lightning.cli import UsageError, main, refusal
from bnn_lightning.files import locked, shown
from bnn_lightning.studies import rows
from bnn_lightning.studies.base import Study, Task
from bnn_lightning.studies.queue import Queue
from bnn_lightning.training.checkpoints import KEY, CheckpointError, epochs_done, read_checkpoint
from bnn_lightning.training.runs import CHECKPOINTS, Run

_STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}


class StudyInterruptedError(Exception):
    """A study was asked to stop; what it was training has been saved."""


class Runner:
    """A study at work.

    Args:
        study: what is run.
        results: the folder of its CSV file.
        storage: Optuna's, a file or the URL of a database; null is a file of this folder's.
        say: prints a line.
    """

    def __init__(self, study: Study, results: Path, storage: str | None, say: Callable[[str], None]):
        self.study, self.file, self.say = study, results / f"{study.name}.csv", say
        self.logs = Path("lightning_logs") / "studies"
        self._again: set[str] = set()
        """What had failed and is run again."""
        self._beyond: list[float] = []
        """Seconds of each run so far that were not its epochs': data, calibration, test."""
        # What a search can draw is fixed in a storage: another space is another study there, which takes the rows over.
        name = f"{study.name}-{study.space}" if study.search else study.name
        self.queue = Queue(name, storage or str(self.logs / f"{study.name}.journal"), self.logs)

    def run(self, only: str = "*", retry: bool = False, retake: bool = False) -> int:
        """Runs what is left; gives how many runs of the study have failed."""
        with self.queue.at_work():
            asked = self._search(retry, retake) if self.study.search else self._work_off(only, retry, retake)
        self._write()
        failed = {key: row["failed"] for key, row in self._rows().items() if key in asked and row.get("failed")}
        for key, reason in failed.items():
            self.say(f"failed: {key}: {reason}")
        if hosts := self.queue.hosts():
            self.say(
                f"{len(hosts)} still running on {', '.join(sorted(set(hosts)))}; "
                "--retake runs here what a machine that is gone has left so."
            )
        self.say(f"Rows: {shown(self.file)}; next: bnn study {shown(self.study.path)} --report")
        return len(failed)

    def _work_off(self, only: str, retry: bool, retake: bool) -> Collection[str]:
        """Runs a grid; gives the keys that were asked for."""
        tasks = _tasks(self.study, only)
        with locked(self.logs / f"{self.study.name}.lock"):
            self.queue.fill(tasks, self._rows(), retry, retake)
        if retry:
            self._again = {key for key, row in self._rows().items() if row.get("failed")}
        while (trial := self.queue.take(tasks)) is not None:
            self._finish(trial, tasks[trial.user_attrs["key"]], tasks)
        return tasks

    def _search(self, retry: bool, retake: bool) -> Collection[str]:
        """Runs a search; gives the keys of its trials."""
        spaces = {name: _space(space) for name, space in self.study.search.items()}
        with locked(self.logs / f"{self.study.name}.lock"):
            for key, (values, row) in self._tried().items():
                encoded = {name: _encoded(values[name], spaces[name]) for name in spaces}
                if not row.get("failed") and key not in self.queue.rows():
                    self.queue.add(key, row, encoded, spaces)
                elif row.get("failed") and retry:
                    self._again.add(key)
                    self.queue.put_in(encoded)
        self.queue.take_up_lost(retake)  # of other machines what they had begun by now, and not what they begin later
        while True:
            self.queue.take_up_lost(retake=False)
            done = {key for key, (_, row) in self._tried().items() if not _is_left(row, key in self._again)}
            if len(done) + len(self.queue.hosts()) >= self._wanted:
                return self._tried()
            trial = self.queue.ask(spaces)
            task = self._trial({name: _decoded(trial.params[name], spaces[name]) for name in spaces})
            taken = done | self.queue.keys_at_work()
            if task.key not in taken:
                trial.set_user_attr("key", task.key)
                self._finish(trial, task, {})
                continue
            # What has been drawn before is not run again; where there is an end to what can be drawn, another is.
            self.queue.drop(trial)
            every = _every(self.study.search)
            others = [values for values in every if self._trial(values).key not in taken]
            if others:
                self.queue.put_in({name: _encoded(others[0][name], spaces[name]) for name in spaces})
            elif every:
                return self._tried()

    @property
    def _wanted(self) -> int:
        """How many trials a search is to have; all, where it could have no more."""
        return min(self.study.trials, len(_every(self.study.search)) or self.study.trials)

    def _trial(self, values: Mapping[str, Any]) -> Task:
        cell = self.study.cell_of(values)
        return self.study.task(cell, cell.seeds[0])

    def _tried(self) -> dict[str, tuple[dict[str, Any], rows.Row]]:
        """What the search has tried with the study's present settings: values and row, by key."""
        tried = ((key, rows.trial_of(self.study, row), row) for key, row in self._rows().items())
        return {key: (values, row) for key, values, row in tried if values is not None}

    def _finish(self, trial: Trial, task: Task, tasks: Mapping[str, Task]) -> None:
        if self.study.read_base() != self.study.base_settings:
            raise UsageError(
                f"{shown(self.study.base_file)} has changed while {shown(self.study.path)} ran, and rows of both would "
                "be mixed up; the same command runs it as it is now."
            )
        start = time.monotonic()
        row = run_task(task, self.logs / self.study.name, self.say)
        self.queue.finish(trial, row)
        self._write()
        found = self._rows()
        self._again.discard(task.key)
        left = [key for key in tasks if _is_left(found.get(key), key in self._again)]
        what = row.get("failed") or _in_short(row)
        elapsed = time.monotonic() - start
        self._beyond.append(max(0.0, elapsed - float(row.get("seconds") or 0)))
        line = f"{task.cell.name}, seed {task.seed}: {what}; {_duration(elapsed)}"
        count = f"{len(tasks) - len(left)}/{len(tasks)}" if tasks else f"{len(self._tried())}/{self._wanted}"
        self.say(f"[{count}] {line}{self._estimate(tasks, found, left)}")

    def _estimate(self, tasks: Mapping[str, Task], found: Mapping[str, rows.Row], left: Collection[str]) -> str:
        """How long the rest will take: as long as the same cell took with another seed, or the mean of all."""
        seconds: dict[str, list[float]] = {}
        for key, task in tasks.items():
            if found.get(key, {}).get("seconds"):
                seconds.setdefault(task.cell.name, []).append(float(found[key]["seconds"]))
        if not seconds or not left:
            return ""
        mean = statistics.mean(one for some in seconds.values() for one in some)
        trained = sum(statistics.mean(seconds.get(tasks[key].cell.name, [mean])) for key in left)
        total = trained + len(left) * statistics.mean(self._beyond)
        return f"; {len(left)} left, about {_duration(total)}"

    def _rows(self) -> dict[str, rows.Row]:
        """Those of the file and of the storage; a failed one only where neither has another."""
        found = {rows.key_of(self.study, row): row for row in rows.read(self.file)}
        for key, row in self.queue.rows().items():
            if not row.get("failed") or found.get(key, row).get("failed"):
                found[key] = row
        return found

    def _write(self) -> None:
        with locked(self.logs / f"{self.study.name}.lock"):
            rows.write(self.file, self.study, self._rows().values())


def dry_run(study: Study, results: Path, only: str, retry: bool, say: Callable[[str], None]) -> int:
    """Says what has no row yet, as commands; gives how many cells would be refused before an image is read."""
    if study.search:
        say(f"{study.name}: {study.trials} trials of {', '.join(study.search)}, from {study.base}")
        return 0
    tasks = _tasks(study, only)
    found = {rows.key_of(study, row): row for row in rows.read(results / f"{study.name}.csv")}
    left = [task for key, task in tasks.items() if _is_left(found.get(key), retry)]
    for number, task in enumerate(left, start=1):
        say(f"[{number}] {task.command}")
    for name, reason in study.not_run.items():
        say(f"not run: {name}: {reason}")
    if len(left) < len(tasks):
        failed = sum(bool(found[key].get("failed")) for key in tasks if key in found)
        again = f", {failed} of them failed: --retry runs those again" if failed and not retry else ""
        say(f"{len(tasks) - len(left)} of {len(tasks)} runs have their row{again}.")
    refused = {
        cell: reason for cell, fit in {task.cell.name: task.fit for task in left}.items() if (reason := refusal(fit))
    }
    for cell, reason in refused.items():
        say(f"will fail: {cell}: {reason}")
    return len(refused)


def _tasks(study: Study, only: str) -> dict[str, Task]:
    """The runs of the cells of these names, by key."""
    tasks = {task.key: task for task in study.tasks() if fnmatch.fnmatch(task.cell.name, only)}
    if not tasks:
        names = ", ".join(dict.fromkeys(task.cell.name for task in study.tasks()))
        raise UsageError(f"--only {only} fits none of {names}.")
    return tasks


def _is_left(row: rows.Row | None, again: bool) -> bool:
    """Whether a run is still to be done, again where it has failed."""
    return row is None or (again and bool(row.get("failed")))


def run_task(task: Task, logs: Path, say: Callable[[str], None]) -> rows.Row:
    """Trains and tests, in processes of their own whose screens go to a file; going on where a run was stopped.

    Raises:
        StudyInterruptedError: when it was asked to stop.
    """
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{task.run_name}.log"
    run, state = _last_run(task)
    if run is not None:
        with locked(run.logs / ".lock", wait=True):  # by a process that outlived the study that began it
            run, state = _last_run(task)
    if state != "trained":
        words = task.fit if run is None else ["fit", "--ckpt_path", shown(run.checkpoints / "last.ckpt")]
        if run is not None:
            say(f"going on with {task.cell.name}, seed {task.seed}")
        if reason := _bnn(words, log):
            return rows.head(task) | {"failed": reason, "command": task.command}
        run, _ = _last_run(task)
    if run is None:
        return rows.head(task) | {"failed": "nothing was saved", "command": task.command}
    if reason := _bnn(task.test_of(run.checkpoints / f"{task.checkpoint}.ckpt"), log):
        return rows.head(task) | {"failed": reason, "command": task.command}
    try:
        return rows.of_run(task, run)
    except Exception as error:  # files of a run that somebody has changed, a network of somebody's own
        reason = f"its results cannot be read: {type(error).__name__}: {error}"
        return rows.head(task) | {"failed": reason, "command": task.command}


def _last_run(task: Task) -> tuple[Run | None, str]:
    """The last run of that name that has saved something, and whether it is trained or only begun."""
    folder = Path(CHECKPOINTS) / task.run_name
    versions = sorted(int(path.parent.name.removeprefix("version_")) for path in folder.glob("version_*/last.ckpt"))
    for version in reversed(versions):
        run = Run(Path(), task.run_name, version)
        try:
            checkpoint = read_checkpoint(run.checkpoints / "last.ckpt")
        except CheckpointError:
            continue
        config = checkpoint[KEY]["config"]
        over = epochs_done(checkpoint) >= config["trainer"]["max_epochs"]
        has_holdout = bool(config["data"].get("init_args", {}).get("val_split"))
        calibrated = "calibration" in checkpoint[KEY] or not has_holdout
        return run, "trained" if over and calibrated else "begun"
    return None, ""


def _bnn(words: Iterable[str], log: Path) -> str:
    """Runs ``bnn``; gives the reason where it failed."""
    log.touch()
    place = log.stat().st_size
    process = _processes().Process(target=_screen_to, args=(list(words), log, Path.cwd()))
    process.start()
    try:
        process.join()
    except KeyboardInterrupt:
        process.terminate()  # SIGTERM, because a second Ctrl-C would not let it save
        process.join()
        raise StudyInterruptedError from None
    code = process.exitcode or 0
    if code in _STOPPED:
        raise StudyInterruptedError
    if code == 0:
        return ""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (", often for lack of memory" if code == -9 else "")
    lines = [line for line in log.read_bytes()[place:].decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("bnn: error: ") for line in lines if line.startswith("bnn: error: ")]
    return (errors or lines or [f"exit code {code}"])[-1]


@cache
def _processes() -> Any:
    """Processes that begin with everything imported, where the system has such."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bnn_lightning.cli"])
    return context


def _screen_to(words: list[str], log: Path, folder: Path) -> None:
    """What such a process does."""
    os.chdir(folder)  # it begins where multiprocessing was imported
    sys.argv[1:] = words  # where Lightning looks for the command of the other processes of a run
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.exit(main(words))


def _space(space: Any) -> BaseDistribution:
    """What a study file says of a flag, as Optuna has it; choices travel as JSON, because Optuna's are plain values."""
    if isinstance(space, list):
        return CategoricalDistribution([json.dumps(choice) for choice in space])
    kind = IntDistribution if all(isinstance(space[end], int) for end in ("low", "high")) else FloatDistribution
    return kind(space["low"], space["high"], log=bool(space.get("log")))


def _every(search: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All that a search can draw; nothing where there is no end to it, or none that it could come to."""
    choices = []
    for space in search.values():
        if isinstance(space, dict) and isinstance(_space(space), FloatDistribution):
            return []
        choices.append(space if isinstance(space, list) else range(space["low"], space["high"] + 1))
    if math.prod(map(len, choices)) > 10_000:
        return []
    return [dict(zip(search, chosen, strict=True)) for chosen in product(*choices)]


def _decoded(value: Any, space: BaseDistribution) -> Any:
    return json.loads(value) if isinstance(space, CategoricalDistribution) else value


def _encoded(value: Any, space: BaseDistribution) -> Any:
    return json.dumps(value) if isinstance(space, CategoricalDistribution) else value


def _in_short(row: Mapping[str, Any]) -> str:
    parts = [f"{100 * float(row['accuracy']):.2f} %"]
    if row.get("elbo_per_n") is not None:
        parts.append(f"elbo/N {float(row['elbo_per_n']):.3f}")
    return ", ".join(parts + ([str(row["marks"])] if row["marks"] else []))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
