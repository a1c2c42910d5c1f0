"""What a verb works with."""

from dataclasses import dataclass, field
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console

from bnn_lightning.checkpoints.record import Record
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.data import DataSource
from bnn_lightning.training.module import BayesianModule
from bnn_lightning.training.runs import Run


@dataclass
class Session:
    """All that a command line asks for, built and ready for a verb to run.

    Args:
        config: every setting, as it was parsed.
        record: the config and the versions of libraries in plain values, as a checkpoint keeps them.
        model: with the network of the config; the checkpoint's weights are not loaded yet.
        datamodule: where it is DataSource, its images are loaded for the verb's stage.
        given_checkpoint: of ``--ckpt_path``, or None.
        run: the folders that results are written to.
        console: where tables are shown.
    """

    config: Namespace
    record: dict[str, Any]
    model: BayesianModule
    datamodule: LightningDataModule
    given_checkpoint: Record | None
    run: Run
    console: Console
    trainer: Trainer = field(init=False)
    """Made last of all, with the callbacks that the verb adds."""

    @property
    def checkpoint(self) -> Record:
        """The checkpoint of ``--ckpt_path``, for a verb that needs one."""
        if self.given_checkpoint is None:
            raise UsageError("--ckpt_path is missing.")
        return self.given_checkpoint

    @property
    def is_in_own_folders(self) -> bool:
        """Whether results go where the run of the checkpoint has its own, and not into folders that are new."""
        return self.given_checkpoint is not None and self.run == Run.from_checkpoint(self.given_checkpoint.path)

    @property
    def shows_progress_bar(self) -> bool:
        return self.config.trainer.enable_progress_bar is not False and self.console.is_terminal

    @property
    def data_description(self) -> dict[str, Any]:
        """What results say about the data: name and notes of the images at hand, the class names of the checkpoint."""
        trained_on = (self.given_checkpoint and self.given_checkpoint.data) or {}
        class_names = trained_on.get("class_names", [])
        if not isinstance(self.datamodule, DataSource):
            name, notes = trained_on.get("name", type(self.datamodule).__name__), trained_on.get("notes", [])
            return {"name": name, "class_names": class_names, "notes": notes}
        notes = list(dict.fromkeys(trained_on.get("notes", []) + self.datamodule.notes))
        return {"name": self.datamodule.name, "class_names": class_names, "notes": notes}

    @rank_zero_only
    def print(self, line: str) -> None:
        """Prints a line, in the first process of a run."""
        print(line, flush=True)
