"""The folders of a run: ``lightning_logs/NAME/version_N`` and its twin ``checkpoints/NAME/version_N``."""

import shutil
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Self

from bnn_lightning.files import UnwritableError, locked

LOGS = "lightning_logs"
CHECKPOINTS = "checkpoints"
_MADE_AT_THE_START = (".lock", "events.out.", "hparams.yaml")  # before there is anything to keep


@dataclass(frozen=True)
class Run:
    """The two folders of one run; ``root`` is where both trees stand, ``is_new`` whether they were made for it now."""

    root: Path
    name: str
    version: int
    is_new: bool = field(default=False, compare=False)

    @property
    def logs(self) -> Path:
        return self.root / LOGS / self.name / f"version_{self.version}"

    @property
    def checkpoints(self) -> Path:
        return self.root / CHECKPOINTS / self.name / f"version_{self.version}"

    @classmethod
    def reserve(cls, root: Path, name: str) -> Self:
        """A run with the lowest version that is free in both trees, its log folder made.

        Raises:
            UnwritableError: when no folder can be made there.
        """
        runs = (cls(root, name, version, is_new=True) for version in count())
        return next(run for run in runs if not run.checkpoints.exists() and run._make_logs())

    def _make_logs(self) -> bool:
        """Makes the log folder; gives False where another process was faster."""
        try:
            self.logs.mkdir(parents=True)
        except FileExistsError:
            if self.logs.is_dir():
                return False
            raise UnwritableError(f"{self.logs.parent} cannot be written: a file is in its way.") from None
        except OSError as error:
            raise UnwritableError(f"{self.logs} cannot be made: {error.strerror}.") from error
        return True

    def discard(self) -> None:
        """Removes folders that were made for this run, where nothing has been saved or measured since."""
        files = [file for folder in (self.logs, self.checkpoints) for file in folder.rglob("*") if file.is_file()]
        if not self.is_new or not all(file.name.startswith(_MADE_AT_THE_START) for file in files):
            return
        for folder in (self.logs, self.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)
            for parent in folder.parents[:2]:
                with suppress(OSError):  # it has other runs, or never was
                    parent.rmdir()

    def locked(self) -> AbstractContextManager[None]:
        """Keeps every other process from training into the same folders."""
        return locked(self.logs / ".lock", wait=False)

    @classmethod
    def from_checkpoint(cls, path: str | Path | None) -> Self | None:
        """The run that wrote a checkpoint, told by the folder that it lies in; None where that is not a run's."""
        if path is None:
            return None
        folder = Path(path).resolve().parent
        name, tree = folder.parent, folder.parent.parent
        number = folder.name.removeprefix("version_")
        if tree.name != CHECKPOINTS or not folder.name.startswith("version_") or not number.isdecimal():
            return None
        return cls(tree.parent, name.name, int(number))
