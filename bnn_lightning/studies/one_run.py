"""Runs one task of a study in processes of their own: trains, joins what is an ensemble, and tests; or simulates."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bnn_lightning.checkpoints.record import CheckpointError, Record, UnreadableError
from bnn_lightning.files import locked, relative_to_cwd
from bnn_lightning.studies import rows
from bnn_lightning.studies.base import Task
from bnn_lightning.studies.processes import run_bnn
from bnn_lightning.training.runs import CHECKPOINTS, LOGS, Run


def run_task(task: Task, logs: Path, say: Callable[[str], None]) -> rows.Row:
    """Trains and tests in processes of their own, and returns the row; a run that was interrupted is resumed.

    Args:
        task: to run.
        logs: the folder for the file with the output of the processes.
        say: prints a line.

    Raises:
        StudyInterruptedError: when the study was asked to stop.
    """
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{task.run_name}.log"
    if task.kind == "acquisition":
        return _simulated(task, log, say)
    try:
        runs = [_trained(of_one, log, say) for of_one in task.members or [task]]
        checkpoints = [run.checkpoints / f"{task.checkpoint}.ckpt" for run in runs]
        tested = checkpoints[0]
        if task.members:
            tested = tested.with_name(f"{task.joined_name}.ckpt")
            tested.unlink(missing_ok=True)  # of a study that was stopped before the test
            _run(task.ensemble_arguments(checkpoints, tested), log)
        _run(task.test_arguments(tested), log)
    except _FailedError as error:
        return rows.head(task) | {"failed": str(error), "command": task.command}
    return _read(task, lambda: rows.from_runs(task, runs, tested))


def _read(task: Task, row: Callable[[], rows.Row]) -> rows.Row:
    """The row of a run that has ended, or one that says why its results cannot be read."""
    try:
        return row()
    except Exception as error:  # edited files, or a network of the user's that raises anything
        reason = f"its results cannot be read: {type(error).__name__}: {error}"
        return rows.head(task) | {"failed": reason, "command": task.command}


class _FailedError(Exception):
    """A process failed; the message is its reason."""


def _run(words: Sequence[str], log: Path) -> None:
    if reason := run_bnn(words, log):
        raise _FailedError(reason)


def _trained(task: Task, log: Path, say: Callable[[str], None]) -> Run:
    """The run of a task, trained to its end."""
    # Another process may want the same network, for an ensemble: it waits, and finds it trained.
    with locked(log.with_name(f".{task.run_name}.lock"), wait=True):
        run, state = _last_run(task)
        if run is not None:
            with locked(run.logs / ".lock", wait=True):  # waits for a process that still runs, whose study was killed
                run, state = _last_run(task)
        if state != "trained":
            words = task.fit_arguments
            if run is not None:
                words = ["fit", "--ckpt_path", relative_to_cwd(run.checkpoints / "last.ckpt")]
                say(f"going on with {task.cell.name}, seed {task.seed}")
            _run(words, log)
            run, _ = _last_run(task)
        if run is None:
            raise _FailedError("nothing was saved")
        return run


def _simulated(task: Task, log: Path, say: Callable[[str], None]) -> rows.Row:
    """Runs a labelling loop, or goes on with one, and returns the row."""
    folder = _simulation(task)
    words = task.fit_arguments
    if folder is not None:
        with locked(folder / ".lock", wait=True):  # waits for a process that still runs although its study was killed
            pass
        words = [*words, "--go_on", relative_to_cwd(folder)]
        say(f"going on with {task.cell.name}, seed {task.seed}")
    if reason := run_bnn(words, log):
        return rows.head(task) | {"failed": reason, "command": task.command}
    folder = folder or _simulation(task)
    if folder is None:
        return rows.head(task) | {"failed": "nothing was saved", "command": task.command}
    return _read(task, lambda: rows.from_simulation(task, folder))


def _simulation(task: Task) -> Path | None:
    """The folder of the task's labelling loop, if one was begun."""
    return next((path.parent for path in sorted((Path(LOGS) / task.run_name).glob("*/simulation.json"))), None)


def _last_run(task: Task) -> tuple[Run | None, str]:
    """The last run of the task that has saved a checkpoint, and whether it is "trained" or only "begun"."""
    folder = Path(CHECKPOINTS) / task.run_name
    versions = sorted(int(path.parent.name.removeprefix("version_")) for path in folder.glob("version_*/last.ckpt"))
    for version in reversed(versions):
        run = Run(Path(), task.run_name, version)
        try:
            record = Record.read(run.checkpoints / "last.ckpt")
        except UnreadableError as error:  # perhaps only now: to begin anew would lose what is in it
            raise _FailedError(str(error)) from error
        except CheckpointError:
            continue
        return run, "trained" if record.is_finished() else "begun"
    return None, ""
