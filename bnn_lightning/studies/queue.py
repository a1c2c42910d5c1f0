"""The queue of a study's runs, kept by Optuna, from which any number of processes and machines take.

A grid is put into Optuna's queue of trials rather than left to its GridSampler: taking from the queue is atomic, where
two processes may draw the same place of a grid; a queue can grow by a seed, where a grid with one more value is another
grid; and a trial whose process was killed is told apart from one that runs.
"""

import json
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
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from bnn_lightning.cli import UsageError
from bnn_lightning.files import InUseError, locked
from bnn_lightning.studies.rows import value_of

Spaces = Mapping[str, BaseDistribution]

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Queue:
    """The runs of one study in a storage of Optuna's.

    Args:
        name: of the study.
        storage: a journal file, or the URL of a database.
        folder: for the locks that tell which of the processes that work here are alive.
    """

    def __init__(self, name: str, storage: str, folder: Path):
        self._folder, self._lock = folder.resolve(), f"{name}.{uuid4().hex[:12]}.lock"
        self._here = f"{socket.gethostname()}:{self._folder}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._storage = get_storage(_storage(storage))
                # No seed: each process of a search is to draw points of its own.
                sampler = TPESampler(constant_liar=True)
                self.study = optuna.create_study(
                    study_name=name, storage=self._storage, load_if_exists=True, sampler=sampler
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
        self.give_up_lost(retake)
        known = self._by_key()
        for key in keys:
            if any(self._counts(trial) for trial in known.get(key, [])):
                continue
            row = done.get(key)
            if row is not None and not row.get("failed"):
                self.add(key, row)
            elif row is None or retry:
                self.study.enqueue_trial({}, user_attrs={"key": key})

    def give_up_lost(self, retake: bool) -> list[FrozenTrial]:
        """Marks runs as failed whose process is gone; gives them."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        lost = [trial for trial in running if self._is_lost(trial, retake)]
        for trial in lost:
            self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        return lost

    def add(
        self, key: str, row: Mapping[str, Any], values: Mapping[str, Any] | None = None, spaces: Spaces | None = None
    ) -> None:
        """Puts in a run that has been done elsewhere; one of a search with its values and where they are from."""
        self.study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=value_of(row),
                params=dict(values or {}),
                distributions=dict(spaces or {}),
                user_attrs={"key": key, "row": json.dumps(row)},
            )
        )

    def take(self, wanted: Collection[str]) -> Trial | None:
        """The next of the runs with these keys that waits; None when none does."""
        for waiting in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            key = waiting.user_attrs.get("key", "")
            if key not in wanted or not self._has_begun(waiting):
                continue
            trial = Trial(self.study, waiting._trial_id)
            # Two machines that filled the queue at once have put everything in twice; the first one counts.
            others = [other for other in self._by_key()[key] if other.number < trial.number]
            if not any(self._counts(other) for other in others):
                self._mark(trial)
                return trial
            self.study.tell(trial, state=TrialState.PRUNED)
        return None

    def _has_begun(self, waiting: FrozenTrial) -> bool:
        """Whether this process is the one that has set a waiting trial to running."""
        try:
            return self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def ask(self, spaces: Spaces) -> Trial:
        """A trial of a search: the next that waits, or else a new one."""
        trial = self.study.ask(dict(spaces))
        self._mark(trial)
        return trial

    def put_in(self, values: Mapping[str, Any]) -> None:
        """Has a search try these values next."""
        self.study.enqueue_trial(dict(values))

    def take_up_lost(self, retake: bool) -> None:
        """Has a search try again what a process that is gone was at."""
        for lost in self.give_up_lost(retake):
            if lost.params:
                self.put_in(lost.params)

    def drop(self, trial: Trial) -> None:
        """Forgets a trial, of which nothing is learnt."""
        self.study.tell(trial, state=TrialState.FAIL)

    def keys_at_work(self) -> set[str]:
        """Of the runs that are at work."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {trial.user_attrs["key"] for trial in running if "key" in trial.user_attrs}

    def _mark(self, trial: Trial) -> None:
        """Says who has it."""
        for name, value in {"lock": self._lock, "host": socket.gethostname(), "here": self._here}.items():
            trial.set_user_attr(name, value)

    def finish(self, trial: Trial, row: Mapping[str, Any]) -> None:
        """Puts down a run's row; one that has a reason in ``failed`` has failed."""
        try:
            trial.set_user_attr("row", json.dumps(row))
            if row.get("failed"):
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, value_of(row))
        except optuna.exceptions.UpdateFinishedTrialError:  # another machine was told to take it for lost
            if not row.get("failed"):
                self.add(trial.user_attrs["key"], row)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The last row of each key; a failed one only where there is no other."""
        found: dict[str, dict[str, Any]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "row" in trial.user_attrs:
                key, row = trial.user_attrs["key"], json.loads(trial.user_attrs["row"])
                if not row.get("failed") or found.get(key, row).get("failed"):
                    found[key] = row
        return found

    def hosts(self) -> list[str]:
        """The machine of each run that is at work."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.user_attrs.get("host", "another machine") for trial in running]

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
        """Whether the process that took it is gone, which only who works in the same place can tell."""
        about = trial.user_attrs
        if about.get("here") != self._here:
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


def _storage(where: str) -> str | BaseStorage:
    if "://" in where:
        return where
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(where))
