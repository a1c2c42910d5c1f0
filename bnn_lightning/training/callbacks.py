"""What accompanies a run: the line and the row of each epoch, and the guards that end a lost one."""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from bnn_lightning.core.whole_network import random_tensors
from bnn_lightning.files import write_rows


class EpochReport(Callback):
    """Appends each epoch's values to ``metrics.csv``, and says them in one line where there is no progress bar.

    Args:
        folder: where ``metrics.csv`` goes; None writes none.
        say: prints a line; None is silent.
    """

    def __init__(self, folder: Path | None, say: Callable[[str], None] | None = None):
        self.file = None if folder is None else folder / "metrics.csv"
        self.say = say
        self._validated = False
        """Whether this epoch has been."""
        self._validating = 0.0
        """Seconds that this epoch has spent so."""
        self._batches = 0

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validated = state_dict["validated"]

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows: list[dict[str, Any]] = []
        if self.file is not None and self.file.is_file():
            # A resumed run goes on in its own table; what it will do again is taken out.
            rows = csv.DictReader(self.file.read_text("utf-8").splitlines())
            self.rows = [row for row in rows if int(row["epoch"]) <= trainer.current_epoch]
        self._batches = 0
        self._started = time.monotonic()  # an epoch that goes on in the middle is not started again

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started, self._validated, self._validating, self._batches = time.monotonic(), False, 0.0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches += 1  # of those that this process has seen: a run may go on in the middle of an epoch

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_started = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True
        self._validating += time.monotonic() - self._validation_started

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = time.monotonic() - self._started
        # Lightning still has the validation of an earlier epoch where this one had none.
        values = {
            name: value.item()
            for name, value in trainer.callback_metrics.items()
            if self._validated or not name.startswith("val/")
        }
        steps = 1000 * (seconds - self._validating) / max(1, self._batches)
        row = {"epoch": trainer.current_epoch + 1, "seconds": round(seconds, 2), "ms_per_batch": round(steps, 2)}
        self.rows.append(row | values)
        try:
            if self.file is not None:
                self._write(self.file)
        finally:
            if self.say is not None:
                self.say(self._line(trainer, score_of(pl_module), values, seconds))

    def _write(self, file: Path) -> None:
        # Epochs need not have the same columns: validation may run at every second only.
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        write_rows(file, columns, self.rows)

    @staticmethod
    def _line(trainer: Trainer, score: str, values: dict[str, float], seconds: float) -> str:
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", f"nll {values['train/nll']:.4f}"]
        if "train/kl_per_n" in values:
            parts.append(f"kl/N {values['train/kl_per_n']:.3f} (weight {values['train/kl_weight']:.2f})")
            parts.append(f"elbo/N {values['train/elbo_per_n']:.3f}")
        parts.append(f"{score} {_score_text(score, values[f'train/{score}'])}")
        if "train/sparsity" in values:
            parts.append(f"sparsity {100 * values['train/sparsity']:.1f} %")
        if "val/nll" in values:
            val_score = _score_text(score, values[f"val/{score}"])
            parts.append(f"val nll {values['val/nll']:.4f}, {score} {val_score}")
        return "  ".join([*parts, f"{seconds:.1f} s"])


def score_of(pl_module: Any) -> str:
    """The name of the score of a module's likelihood, such as accuracy."""
    return pl_module.likelihood.score


def _score_text(score: str, value: float) -> str:
    return f"{100 * value:.2f} %" if score == "accuracy" else f"{value:.4f}"


class TrainingStoppedError(RuntimeError):
    """A run was ended because nothing could come of it any more; the message says what was seen and the cure."""


class FiniteGuard(Callback):
    """Ends a run whose loss is no longer finite, naming the first tensor that is not; ``last.ckpt`` stays as it was.

    On a CPU every step is looked at before its gradients are formed. On other devices, where a look makes the program
    wait for the device, only every 50th; and always the last of an epoch, before it is validated and saved.
    """

    every_n_steps = 50

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch, self._batch_idx = batch, batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        look = pl_module.device.type == "cpu" or self._batch_idx % self.every_n_steps == 0
        if look and not torch.isfinite(loss):
            self._stop(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch and not is_finite(pl_module):
            self._stop(trainer, pl_module)

    def _stop(self, trainer: Trainer, pl_module: LightningModule) -> None:
        cause = first_bad_tensor(pl_module, self._batch)
        cure = "try a smaller --model.inference.lr, or a KL warm-up (--model.inference.kl_weight LinearWarmup)"
        if cause == _BAD_IMAGES:
            bad = int((~torch.isfinite(self._batch[0])).flatten(1).any(1).sum())
            cure = (
                f"look for nan or inf in your data: {bad} of the {len(self._batch[0])} images of this batch have some"
            )
        raise TrainingStoppedError(
            f"the loss is not finite in epoch {trainer.current_epoch + 1}, step {self._batch_idx + 1}: {cause}. "
            f"The checkpoints of earlier epochs are as they were; {cure}."
        )


_BAD_IMAGES = "the images are not finite"


def is_finite(module: LightningModule) -> bool:
    """Whether all parameters are."""
    return all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters())


def first_bad_tensor(module: Any, batch: Any) -> str:
    """What is not finite first, on the way from images to loss: an input, a parameter, a layer's output, a KL."""
    if not torch.isfinite(batch[0]).all():
        return _BAD_IMAGES
    # Gradients flow from the last layer to the first and spoil all they pass: the last bad parameter was the first.
    for name, parameter in reversed(list(module.network.named_parameters())):
        if not torch.isfinite(parameter).all():
            return f"{name} is not finite, from its gradient in the step before"
    outputs: list[tuple[str, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda _, args, y, name=name: outputs.append((name, y)))
        for name, layer in module.network.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            logits = module(batch[0])
    finally:
        for hook in hooks:
            hook.remove()
    for name, y in [*outputs, ("the network", logits)]:
        if isinstance(y, Tensor) and not torch.isfinite(y).all():
            return f"the output of {name} is not finite"
    for name, posterior in random_tensors(module.network):
        if not torch.isfinite(posterior.kl()):
            return f"the KL of {name} is not finite"
    return "every tensor is finite with other noise"


class CollapseGuard(Callback):
    """Ends a run whose KL has erased the weights before the likelihood found a use for them."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        summary: Any = getattr(pl_module, "summary", None)
        if summary is not None and summary.has_collapsed:
            raise TrainingStoppedError(
                f"the weights have collapsed in epoch {trainer.current_epoch + 1}: {100 * summary.sparsity:.1f} % of "
                f"them could be removed, and nll {summary.nll:.3f} is that of guessing. Let the likelihood organise "
                "first: --model.inference.kl_weight LinearWarmup --model.inference.kl_weight.start 5 "
                "--model.inference.kl_weight.length 15, or start from a trained network with --model.init_from."
            )
