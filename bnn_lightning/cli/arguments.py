"""The arguments of the command line's verbs, as methods of a Trainer, where LightningCLI looks for them."""

from typing import Any, Literal

from lightning.pytorch import Trainer

from bnn_lightning.core.posteriors import THRESHOLD


class VerbTrainer(Trainer):
    """Lightning's Trainer with the arguments of the verbs that Lightning does not have; CommandLine does their work."""

    def fit(  # type: ignore[override]
        self,
        model: Any,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: Any = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        save_every_n_steps: int | None = None,
    ) -> None:
        """Trains.

        Args:
            save_every_n_steps: save last.ckpt also within an epoch, after every so many steps; null saves it between
                epochs.
        """
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)

    def predict(  # type: ignore[override]
        self,
        model: Any = None,
        dataloaders: Any = None,
        datamodule: Any = None,
        return_predictions: bool | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        target_risk: float = 0.01,
        alpha: float = 0.05,
    ) -> Any:
        """Predicts, with what to make of each prediction.

        Args:
            target_risk: accept as many predictions as keep the error rate among them below this, and abstain from the
                others; by the calibration images, for images like those.
            alpha: the prediction set of an image misses the true class at most this often; likewise.
        """
        return super().predict(model, dataloaders, datamodule, return_predictions, ckpt_path, weights_only)

    def ensemble(
        self, model: Any, datamodule: Any, ckpt_path: str, members: list[str], output: str | None = None
    ) -> None:
        """Puts trained networks together, and calibrates what they predict together.

        Args:
            members: the other checkpoints, such as [b.ckpt, c.ckpt], of the same model and data; only seeds may differ.
            output: the file to write; null is ensemble.ckpt beside the first checkpoint.
        """

    def prune(self, model: Any, datamodule: Any, ckpt_path: str, removed: float | list[float] | None = None) -> None:
        """Measures mean weights without those of lowest signal-to-noise.

        Args:
            removed: share of all weights to remove, or several as [0.5, 0.9]; null is 0, 0.5, 0.75, 0.9, 0.95, 0.98
                and 0.99.
        """

    def export(
        self,
        model: Any,
        datamodule: Any,
        ckpt_path: str,
        format: Literal["dense"] = "dense",
        output: str | None = None,
        removed: float | None = None,
        threshold: float = THRESHOLD,
    ) -> None:
        """Writes a smaller network.

        Args:
            format: dense, a network without the units and features that have no weights left.
            output: the file to write; null is beside the checkpoint, with the ending .pt2.
            removed: share of all weights to remove, those of lowest |mu| / sigma first; null goes by the threshold.
            threshold: weights with log alpha above it are removed; 3 is the published one.
        """
