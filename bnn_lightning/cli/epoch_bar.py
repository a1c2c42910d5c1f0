"""The progress bar of a training, in which each epoch is a line that stays."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich import get_console
from rich.progress import ProgressColumn

from bnn_lightning.reporting.cells import metric_text
from bnn_lightning.training.callbacks import score_of

# What is in the columns of the progress bar at most, each with a blank, and how long the bar itself may be.
_TIMES, _SPEED, _LONGEST_RESULTS = "0:12:34 • 0:12:34 ", "123.45it/s ", "nll: 0.1234 val: 0.1234, 97.53 % "
_SHORTEST_BAR, _LONGEST_BAR = 8, 40


class EpochBar(RichProgressBar):
    """Lightning's progress bar; each epoch's stays on the screen, with what the epoch came to."""

    def __init__(self) -> None:
        super().__init__(leave=True)
        self._texts: dict[str, int | str | float | dict[str, float]] = {}

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Lightning's, but those alone that the line has room for: results would be broken over several otherwise."""
        description, bar, *others = super().configure_columns(trainer)
        epoch, batches = f"Epoch {trainer.max_epochs}/{trainer.max_epochs} ", f"{trainer.num_training_batches} "
        room = get_console().width + 1 - len(epoch) - len(_LONGEST_RESULTS)  # no blank behind the last
        room -= _SHORTEST_BAR
        shown = []
        for column, width in zip(others, (2 * len(batches), len(_TIMES), len(_SPEED)), strict=True):
            if room >= width:
                shown.append(column)
                room -= width
        if room >= 0:
            bar.bar_width = min(room + _SHORTEST_BAR - 1, _LONGEST_BAR)
            shown.insert(0, bar)
        return [description, *shown]

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"  # Lightning counts from 0

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        return self._texts

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Read once an epoch: Lightning asks after every batch, where a look makes the program wait for the device.
        score = score_of(pl_module)
        values = {key: value.item() for key, value in trainer.callback_metrics.items()}
        self._texts = {"nll": f"{values['train/nll']:.4f}"} if "train/nll" in values else {}
        if "val/nll" in values:
            self._texts["val"] = f"{values['val/nll']:.4f}, {metric_text(score, values[f'val/{score}'])}"
        super().on_train_epoch_end(trainer, pl_module)
