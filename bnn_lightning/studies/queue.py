"""The queue of a study's runs, kept by Optuna, from which any number of processes and machines take.

A grid is put into Optuna's queue of trials rather than left to its GridSampler: taking from the queue is atomic, where
two processes may draw the same place of a grid; a queue can grow by a seed, where a grid with one more value is another
grid; and a trial whose process was killed is told apart from one that runs.
"""

import json
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from bnn_lightning.files import InUseError, locked
from bnn_lightning.settings import UsageError

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Queue:
    """The runs of one study in a storage of Optuna's.

    Args:
        name: of the study.
        storage: a journal file, or the URL of a database.
        folder: of this machine's own, for the locks that tell which processes are alive.
    """

    def __init__(self, name: str, storage: str, folder: Path):
        self._folder, self._lock = folder, f"{name}.{uuid4().hex[:12]}.lock"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study = optuna.create_study(
                    study_name=name, storage=_storage(storage), load_if_exists=True, sampler=TPESampler(seed=0)
                )
        except Exception as error:  # whatever a database's own driver raises
            raise UsageError(f"--storage {storage} cannot be used: {' '.join(str(error).split())}") from error

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Around everything that takes trials: while it lasts, what this process has taken is not taken for lost."""
        try:
            with locked(self._folder / self._lock):
                yield
        finally:
            (self._folder / self._lock).unlink(missing_ok=True)

    def fill(self, keys: Iterable[str], done: Mapping[str, Mapping[str, Any]], retry: bool, retake: bool) -> None:
        """Puts in what is neither done, nor waiting, nor at work.

        Args:
            keys: of all runs, in their order.
            done: rows of finished and failed ones by key, which may be from another storage.
            retry: whether failed ones are run again.
            retake: whether those are that another machine began and did not finish.
        """
        known = self._by_key()
        for key in keys:
            trials = known.get(key, [])
            lost = [trial for trial in trials if trial.state == TrialState.RUNNING and self._is_lost(trial, retake)]
            for trial in lost:
                self.study.tell(trial.number, state=TrialState.FAIL)
            if any(self._counts(trial) for trial in trials if trial not in lost):
                continue
            row = done.get(key)
            if row is not None and not row.get("failed"):
                attributes = {"key": key, "row": json.dumps(row)}
                self.study.add_trial(
                    create_trial(state=TrialState.COMPLETE, value=value_of(row), user_attrs=attributes)
                )
            elif row is None or retry:
                self.study.enqueue_trial({}, user_attrs={"key": key})

    def take(self) -> Trial | None:
        """The next run that waits; None when none does."""
        while self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            trial = self.study.ask()
            key = trial.user_attrs.get("key")
            # Two machines that filled the queue at once have put everything in twice; the first one counts. A trial
            # without a key is one that Optuna made up because another process was faster.
            others = [other for other in self._by_key().get(key or "", []) if other.number < trial.number]
            if key is not None and not any(self._counts(other) for other in others):
                self.mark(trial)
                return trial
            self.study.tell(trial, state=TrialState.PRUNED)
        return None

    def ask(self) -> Trial:
        """A new trial of a search."""
        trial = self.study.ask()
        self.mark(trial)
        return trial

    def put_back(self, trials: Iterable[Trial]) -> None:
        """Has trials that were taken and not run wait again."""
        for trial in trials:
            self.study.tell(trial, state=TrialState.PRUNED)
            self.study.enqueue_trial({}, user_attrs={"key": trial.user_attrs["key"]})

    def mark(self, trial: Trial) -> None:
        """Says who has it."""
        trial.set_user_attr("lock", self._lock)
        trial.set_user_attr("host", socket.gethostname())

    def finish(self, trial: Trial, row: Mapping[str, Any]) -> None:
        """Puts down a run's row; one that has a reason in ``failed`` has failed."""
        trial.set_user_attr("row", json.dumps(row))
        if row.get("failed"):
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, value_of(row))

    def rows(self) -> dict[str, dict[str, Any]]:
        """The last row of each key."""
        return {
            trial.user_attrs["key"]: json.loads(trial.user_attrs["row"])
            for trial in self.study.get_trials(deepcopy=False)
            if "row" in trial.user_attrs
        }

    def counted(self) -> tuple[int, list[str]]:
        """How many wait, and on which machines others run."""
        trials = self.study.get_trials(deepcopy=False)
        waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        return waiting, [trial.user_attrs.get("host", "?") for trial in trials if trial.state == TrialState.RUNNING]

    def _by_key(self) -> dict[str, list[FrozenTrial]]:
        found: dict[str, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            found.setdefault(trial.user_attrs.get("key", ""), []).append(trial)
        return found

    def _counts(self, trial: FrozenTrial) -> bool:
        """Whether a trial is done, or will be."""
        if trial.state == TrialState.RUNNING:
            return not self._is_lost(trial, retake=False)
        return trial.state in (TrialState.WAITING, TrialState.COMPLETE)

    def _is_lost(self, trial: FrozenTrial, retake: bool) -> bool:
        """Whether the process that took it is gone, which only its own machine can tell."""
        about = trial.user_attrs
        if about.get("host") != socket.gethostname():
            return retake
        if about["lock"] == self._lock:
            return False
        file = self._folder / about["lock"]
        try:
            with locked(file, wait=False):  # the system frees the lock of a process that dies
                pass
        except InUseError:
            return False
        file.unlink(missing_ok=True)
        return True


def value_of(row: Mapping[str, Any]) -> float:
    """What Optuna minimises: the validation NLL; where there is no hold-out, that of training."""
    return float(row.get("val_nll") or row.get("train_nll") or 0.0)


def _storage(where: str) -> str | BaseStorage:
    if "://" in where:
        return where
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(where))
