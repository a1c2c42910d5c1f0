"""Writes best.ckpt and last.ckpt atomically, between training steps."""

import math
import signal
import threading
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from bnn_lightning.checkpoints.record import KEY, read_checkpoint, write_checkpoint
from bnn_lightning.files import remove_unfinished
from bnn_lightning.inference import Inference
from bnn_lightning.training.callbacks import is_finite


class AtomicCheckpointIO(TorchCheckpointIO):
    """Has a Trainer write checkpoints atomically and of plain values only, as one of its ``plugins``.

    Lightning's own way moves a file out of a temporary folder, which is a copy where that is another disk: a process
    that is killed then leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path))


class RunInterruptedError(RuntimeError):
    """A run was asked to stop, by SIGTERM or Ctrl-C, and has saved where it stands; the message says where."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


class StopRequest:
    """Records SIGTERM and Ctrl-C; training checks for them after each step. A second Ctrl-C takes effect at once."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        self.signum = None
        if threading.current_thread() is threading.main_thread():  # no other one can have handlers
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop_listening(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: Any) -> None:
        if number == self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = number


class Checkpoints(Checkpoint):
    """``best.ckpt`` and ``last.ckpt``, from each of which a run goes on as if it had not been stopped.

    ``last.ckpt`` is saved between epochs, when everything of the epoch that is over has been done: validation,
    schedules, curves. It is there before the first epoch, so that what cannot be saved shows at once.

    ``best.ckpt`` is the epoch of lowest validation NLL among those after the KL warm-up: an epoch of the warm-up has
    another objective, and its posterior would be a tempered one. A run that ends before that keeps its last epoch.

    SIGTERM and Ctrl-C are answered after the step, with ``last.ckpt`` and a :class:`RunInterruptedError`.

    Args:
        folder: where both go; that of the first process counts.
        inference: says when its warm-up is over.
        every_n_steps: save ``last.ckpt`` also within an epoch; null saves between epochs only.
    """

    look_every_n_batches = 50  # processes agree on whether to stop; that is a synchronisation

    def __init__(self, folder: Path | str, inference: Inference, every_n_steps: int | None = None):
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be 1 or more, or null, got {every_n_steps}.")
        self.folder, self.inference, self.every_n_steps = Path(folder), inference, every_n_steps
        self.best_nll: float | None = None
        self._val_nll: float | None = None
        """Of the epoch at hand, once it has been validated."""
        self._due = self._stops = False
        self._saved_at: int | None = None
        self._request = StopRequest()

    def state_dict(self) -> dict[str, Any]:
        return {"best_nll": self.best_nll, "val_nll": self._val_nll}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_nll, self._val_nll = state_dict["best_nll"], state_dict["val_nll"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Between epochs Lightning has already counted the next one as ready; for the one who goes on it is not.
        for progress in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            progress["ready"] = progress["started"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder = trainer.strategy.broadcast(self.folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._due = self._stops = False
        if trainer.is_global_zero:
            for name in ("best.ckpt", "last.ckpt"):
                remove_unfinished(self.folder, name)
        there = [(self.folder / name).is_file() for name in ("best.ckpt", "last.ckpt")]
        has_best, has_last = trainer.strategy.broadcast(there)
        if not has_best:
            self.best_nll = None  # a run that goes on in another folder has a best of its own
        self._saved_at = trainer.global_step if trainer.ckpt_path and has_last else None
        self._request.listen()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        nll = trainer.callback_metrics.get("val/nll")
        if nll is not None and not trainer.sanity_checking:
            self._val_nll = math.inf if math.isnan(nll) else nll.item()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._between_epochs(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._between_epochs(trainer, ended=True)
        self._request.stop_listening()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self.every_n_steps is not None and step % self.every_n_steps == 0 and step != self._saved_at:
            self._due = True
        look = trainer.world_size == 1 or batch_idx % self.look_every_n_batches == 0
        self._stops = self._stops or (look and self._is_asked_to_stop(trainer))
        if (self._due or self._stops) and self._is_at_rest(trainer, batch_idx) and is_finite(pl_module):
            self._save(trainer, "last")
            if self._stops:
                where = f"step {batch_idx + 1} of {trainer.num_training_batches}"
                self._interrupt(f"in epoch {trainer.current_epoch + 1}, {where}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._request.stop_listening()

    @staticmethod
    def _is_at_rest(trainer: Trainer, batch_idx: int) -> bool:
        """Whether nothing of this step is still to come: gradients that add up, a validation, the epoch's end."""
        adds_up = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        every: Any = trainer.val_check_batch
        counts = (batch_idx + 1, trainer.fit_loop.total_batch_idx + 1)
        return not (adds_up or trainer.is_last_batch or (every and any(count % every == 0 for count in counts)))

    def _between_epochs(self, trainer: Trainer, ended: bool = False) -> None:
        if trainer.global_step != self._saved_at:
            nll, self._val_nll = self._val_nll, None
            settled = self.inference.is_settled(trainer.current_epoch - 1, trainer.max_epochs or 1)
            if nll is not None and settled and (self.best_nll is None or nll < self.best_nll):
                self.best_nll = nll
                self._save(trainer, "best")
            elif nll is not None and ended and self.best_nll is None:
                self._save(trainer, "best")  # until the run is made longer and has one after its warm-up
            self._save(trainer, "last")
        if self._is_asked_to_stop(trainer):
            self._interrupt(f"after epoch {trainer.current_epoch}")

    def _save(self, trainer: Trainer, name: str) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()  # curves up to here last as long as the checkpoint
        trainer.save_checkpoint(self.folder / f"{name}.ckpt")
        self._due, self._saved_at = False, trainer.global_step

    def _is_asked_to_stop(self, trainer: Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._request.signum is not None, all=False)

    def _interrupt(self, where: str) -> None:
        signum = self._request.signum or signal.SIGTERM  # it may be another process that was asked
        raise RunInterruptedError(f"stopped by {signal.Signals(signum).name} {where}", signum)


class Calibrate(Callback):
    """Puts the calibration of every way of predicting into ``best.ckpt`` and ``last.ckpt``, when training has ended.

    It is fitted on the calibration half of the hold-out (unused for training and model selection); a run without a
    hold-out has none.

    Args:
        folder: of the checkpoints.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder = trainer.strategy.broadcast(self.folder)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model: Any = pl_module
        loader: Any = getattr(trainer.datamodule, "calibration_dataloader", None)  # type: ignore[attr-defined]
        trainer.strategy.barrier()
        # Where there are fewer images than processes, some have none: then all of them leave it.
        if trainer.strategy.reduce_boolean_decision(loader is None or len(loader()) == 0, all=False):
            return
        trained = {name: value.clone() for name, value in model.state_dict().items()}
        try:
            model.to(trainer.strategy.root_device)  # Lightning has taken it off again
            self._calibrate(trainer, model)
        finally:
            model.cpu().load_state_dict(trained)

    def _calibrate(self, trainer: Trainer, model: Any) -> None:
        records: dict[int, dict[str, Any]] = {}  # by step: best and last may be the same
        for file in (self.folder / "best.ckpt", self.folder / "last.ckpt"):
            if not file.is_file():
                continue
            checkpoint = read_checkpoint(file)
            step = checkpoint["global_step"]
            if step not in records:
                model.load_state_dict(checkpoint["state_dict"])
                fitted = model.calibrated(trainer.datamodule)  # type: ignore[attr-defined]
                records[step] = {draws: calibration.record() for draws, calibration in fitted.items()}
            checkpoint[KEY]["calibration"] = records[step]
            trainer.strategy.barrier()  # every process has read the file
            if trainer.is_global_zero:
                write_checkpoint(checkpoint, file)


class RunRecord(Callback):
    """Puts the resolved config into every checkpoint, so that a checkpoint alone can be tested and gone on with.

    Args:
        record: plain values: the config, the seed, the versions it ran with.
    """

    def __init__(self, record: dict[str, Any]):
        self.record = record

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.setdefault(KEY, {}).update(self.record)
