"""The queue of a study's runs in an Optuna storage, from which any number of processes and machines take runs.

A grid is put into Optuna's queue of trials instead of using Optuna's GridSampler. Taking from the queue is atomic,
whereas two processes may draw the same point of a grid; runs can be added to a queue, whereas a grid with one more
value is another grid; and trials whose process was killed can be told from running ones.
"""

import json
import os
import socket
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from bnn_lightning.cli import UsageError
from bnn_lightning.files import InUseError, locked
from bnn_lightning.studies.rows import search_objective
from bnn_lightning.wording import one_line

Spaces = Mapping[str, BaseDistribution]

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Queue:
    """The runs of one study in an Optuna storage.

    Args:
        name: of the study.
        storage: a journal file, or the URL of a database.
        folder: for lock files, by which processes that use the same folder see which of them are alive.

    Raises:
        UsageError: when the storage cannot be used.
    """

    def __init__(self, name: str, storage: str, folder: Path):
        self._folder, self._lock = folder.resolve(), f"{name}.{uuid4().hex[:12]}.lock"
        self._location = f"{socket.gethostname()}:{self._folder}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._storage = get_storage(_storage(storage))
                # No seed, so that each process of a search draws other points.
                sampler = TPESampler(constant_liar=True)
                self.study = optuna.create_study(
                    study_name=name, storage=self._storage, load_if_exists=True, sampler=sampler
                )
        except Exception as error:  # a database's driver can raise anything
            cure = "; a journal can be deleted, for finished runs are in the results" if "://" not in storage else ""
            raise UsageError(f"--storage {storage} cannot be used: {one_line(error)}{cure}.") from error

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Holds this process's lock, so that others see that it is alive; to be held whenever trials are taken."""
        try:
            with locked(self._folder / self._lock):
                yield
        finally:
            (self._folder / self._lock).unlink(missing_ok=True)

    def fill(self, keys: Iterable[str], done: Mapping[str, Mapping[str, Any]], retry: bool, retake: bool) -> None:
        """Enqueues the runs that are neither finished, nor waiting, nor running.

        Args:
            keys: of all runs, in their order.
            done: rows of finished and failed runs by key, which may be from another storage.
            retry: whether failed runs are run again.
            retake: whether unfinished runs of other machines are run again.
        """
        self.fail_lost(retake)
        trials = self._by_key()
        for key in keys:
            if any(self._is_done_or_pending(trial) for trial in trials.get(key, [])):
                continue
            row = done.get(key)
            if row is not None and not row.get("failed"):
                self.add(key, row)
            elif row is None or retry:
                self.study.enqueue_trial({}, user_attrs={"key": key})

    def fail_lost(self, retake: bool) -> list[FrozenTrial]:
        """Marks running trials as failed whose process no longer exists, and returns them."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        lost = [trial for trial in running if self._is_lost(trial, retake)]
        for trial in lost:
            self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        return lost

    def add(
        self, key: str, row: Mapping[str, Any], values: Mapping[str, Any] | None = None, spaces: Spaces | None = None
    ) -> None:
        """Adds a finished run.

        Args:
            key: of the run.
            row: its results.
            values: of the flags, for a run of a search.
            spaces: of the flags, for a run of a search.
        """
        self.study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=search_objective(row),
                params=dict(values or {}),
                distributions=dict(spaces or {}),
                user_attrs={"key": key, "row": json.dumps(row)},
            )
        )

    def take(self, keys: Collection[str]) -> Trial | None:
        """Takes the next waiting run with one of these keys; None if there is none."""
        for waiting in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            key = waiting.user_attrs.get("key", "")
            if key not in keys or not self._claim(waiting):
                continue
            trial = Trial(self.study, waiting._trial_id)
            # Two machines that filled the queue at the same time have enqueued every run twice; the first one counts.
            earlier = [other for other in self._by_key()[key] if other.number < trial.number]
            if not any(self._is_done_or_pending(other) for other in earlier):
                self._record_owner(trial)
                return trial
            self.study.tell(trial, state=TrialState.PRUNED)
        return None

    def _claim(self, waiting: FrozenTrial) -> bool:
        """Sets a waiting trial to running; gives whether this process, and no other, has done so."""
        try:
            return self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def ask(self, spaces: Spaces) -> Trial:
        """Takes a trial of a search: the next waiting one, or a new one."""
        trial = self.study.ask(dict(spaces))
        self._record_owner(trial)
        return trial

    def enqueue(self, values: Mapping[str, Any]) -> None:
        """Makes a search try these values next."""
        self.study.enqueue_trial(dict(values))

    def enqueue_lost(self, retake: bool) -> None:
        """Makes a search try again the values of running trials whose process no longer exists."""
        for lost in self.fail_lost(retake):
            if lost.params:
                self.enqueue(lost.params)

    def drop(self, trial: Trial) -> None:
        """Discards a trial that was not run; the sampler learns nothing from it."""
        self.study.tell(trial, state=TrialState.FAIL)

    def running_keys(self) -> set[str]:
        """The keys of the running trials."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {trial.user_attrs["key"] for trial in running if "key" in trial.user_attrs}

    def _record_owner(self, trial: Trial) -> None:
        """Stores in a trial which process runs it."""
        for name, value in {"lock": self._lock, "host": socket.gethostname(), "here": self._location}.items():
            trial.set_user_attr(name, value)

    def finish(self, trial: Trial, row: Mapping[str, Any]) -> None:
        """Stores a run's row and ends its trial, as failed if the row has a reason in ``failed``."""
        try:
            trial.set_user_attr("row", json.dumps(row))
            if row.get("failed"):
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, search_objective(row))
        except optuna.exceptions.UpdateFinishedTrialError:  # another machine has taken it for lost
            if not row.get("failed"):
                self.add(trial.user_attrs["key"], row)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The last row of each key; that of a failed run only if there is no other."""
        by_key: dict[str, dict[str, Any]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "row" in trial.user_attrs:
                key, row = trial.user_attrs["key"], json.loads(trial.user_attrs["row"])
                if not row.get("failed") or by_key.get(key, row).get("failed"):
                    by_key[key] = row
        return by_key

    def running_hosts(self) -> list[str]:
        """The machine of each running trial."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.user_attrs.get("host", "another machine") for trial in running]

    def _by_key(self) -> dict[str, list[FrozenTrial]]:
        trials: dict[str, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            trials.setdefault(trial.user_attrs.get("key", ""), []).append(trial)
        return trials

    def _is_done_or_pending(self, trial: FrozenTrial) -> bool:
        """Whether a trial has finished, is running in a living process, or waits."""
        if trial.state == TrialState.RUNNING:
            return not self._is_lost(trial, retake=False)
        return trial.state in (TrialState.WAITING, TrialState.COMPLETE)

    def _is_lost(self, trial: FrozenTrial, retake: bool) -> bool:
        """Whether the process that took a trial no longer exists.

        That can be seen only for processes in the same folder of the same machine; for others, ``retake`` decides.
        """
        owner = trial.user_attrs
        if owner.get("here") != self._location:
            return retake
        if owner["lock"] == self._lock:
            return False
        file = self._folder / owner["lock"]
        try:
            with locked(file, wait=False):  # the operating system releases the lock of a process that dies
                pass
        except InUseError:
            return False
        file.unlink(missing_ok=True)
        return True


def _storage(location: str) -> str | BaseStorage:
    if "://" in location:
        return location
    Path(location).parent.mkdir(parents=True, exist_ok=True)
    _drop_cut_line(Path(location))
    return JournalStorage(JournalFileBackend(location))


def _drop_cut_line(journal: Path) -> None:
    """Removes a last line that a full disk or a loss of power has cut: the next one would be appended to it."""
    lock = JournalFileSymlinkLock(str(journal))  # Optuna's own, with which each line is written
    lock.acquire()
    try:
        contents = journal.read_bytes() if journal.is_file() else b""
        if contents and not contents.endswith(b"\n"):
            os.truncate(journal, contents.rfind(b"\n") + 1)
    finally:
        lock.release()
