"""The folders of a run: ``lightning_logs/NAME/version_N`` and its twin ``checkpoints/NAME/version_N``."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

LOGS = "lightning_logs"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Run:
    """The two folders of one run; ``root`` is where both trees stand."""

    root: Path
    name: str
    version: int

    @property
    def logs(self) -> Path:
        return self.root / LOGS / self.name / f"version_{self.version}"

    @property
    def checkpoints(self) -> Path:
        return self.root / CHECKPOINTS / self.name / f"version_{self.version}"

    @classmethod
    def reserve(cls, root: Path, name: str) -> Self:
        """A run with the lowest version that is free in both trees, its log folder made."""
        for version in count():
            run = cls(root, name, version)
            if run.checkpoints.exists():
                continue
            try:
                run.logs.mkdir(parents=True)  # fails where another process was faster
            except FileExistsError:
                continue
            return run
        raise AssertionError("count() does not end")

    @classmethod
    def of_checkpoint(cls, path: str | Path | None) -> Self | None:
        """The run that wrote a checkpoint, told by the folder that it lies in; None where that is not a run's."""
        if path is None:
            return None
        folder = Path(path).resolve().parent
        name, tree = folder.parent, folder.parent.parent
        number = folder.name.removeprefix("version_")
        if tree.name != CHECKPOINTS or not folder.name.startswith("version_") or not number.isdecimal():
            return None
        return cls(tree.parent, name.name, int(number))
