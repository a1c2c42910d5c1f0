"""What a training run shows in TensorBoard beside its curves: their layout, the posterior, the hyper-parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnn_lightning.core.posteriors import Point
from bnn_lightning.core.whole_network import random_tensors
from bnn_lightning.reporting import figures
from bnn_lightning.training.callbacks import score_of

_MOST_TENSORS, _MOST_ELEMENTS = 16, 100_000  # of the histograms of one epoch


# Beside elbo_per_n, nll and kl_per_n these say nothing: the first is -elbo/N (without a KL the nll), the second N KL/N.
_SAID_ALREADY = ("/loss", "/kl")


class Board(TensorBoardLogger):
    """Lightning's logger without curves that are constant, or another one again: ``metrics.csv`` has them all.

    Arguments are those of TensorBoardLogger.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"default_hp_metric": False, **kwargs})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        told = {name: value for name, value in metrics.items() if name != "epoch" and not name.endswith(_SAID_ALREADY)}
        if told:
            super().log_metrics(told, step)


class CurveLayout(Callback):
    """TensorBoard's "Custom scalars" page: training and validation curves in one chart each, and the schedules."""

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        names = ["nll", score_of(pl_module)]
        schedules = {"learning rate": ["Multiline", ["lr"]]}
        if getattr(pl_module, "objective", "likelihood") != "likelihood":
            names += ["elbo_per_n", "kl_per_n"]
            schedules["KL weight"] = ["Multiline", ["train/kl_weight"]]
        if getattr(pl_module, "removes_weights", False):
            schedules["sparsity"] = ["Multiline", ["train/sparsity"]]
        curves = {name: ["Multiline", [f"train/{name}", f"val/{name}"]] for name in names}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars({"training and validation": curves, "schedules": schedules})


class PosteriorBoard(Callback):
    """TensorBoard's pictures of the posterior: histograms of each layer's sigma, |mu| / sigma and log alpha, posterior
    against prior, and the first layer's filters.

    They are made after the last epoch and before it every fifth, or of a run of more than 100 epochs every twentieth
    part of it: a figure takes half a second, of small networks as long as many epochs.

    Of a large network there are histograms of at most 16 tensors, the first and the last among them, each of at most
    100,000 elements; they are taken at equal distances.
    """

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        epochs = trainer.max_epochs or -1  # -1 where the end is given in steps or seconds
        if not boards or (epoch % max(5, -(-epochs // 20)) and epoch != epochs):
            return
        tensors = random_tensors(pl_module.network)  # type: ignore[arg-type]
        named = [(name, part) for name, part in tensors if part.has_variance and not isinstance(part, Point)]
        if not named:
            return
        with torch.no_grad():
            step = trainer.global_step - 1  # that of the epoch's curves
            for board in boards:
                for name, part in _spread(named, _MOST_TENSORS):
                    sigma = part.variance.expand_as(part.mean).sqrt()
                    values = {"sigma": sigma, "mu_over_sigma": part.mean.abs() / sigma, "log_alpha": part.log_alpha()}
                    for what, value in values.items():
                        some = value.flatten()[:: -(-value.numel() // _MOST_ELEMENTS)]
                        finite = some[some.isfinite()]
                        if len(finite):
                            board.add_histogram(f"{what}/{name}", finite, step)
                for title, figure in {
                    "posterior and prior": figures.posterior_and_prior(named),
                    "first layer": figures.first_layer_filters(*named[0]),
                }.items():
                    if figure is not None:
                        board.add_figure(title, figure, step)


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """All items, or ``most`` of them at equal distances, from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def add_classes(logger: TensorBoardLogger, name: str, results: Mapping[str, Any]) -> None:
    """Adds the classes of a test to TensorBoard's page of texts, as a table.

    Args:
        logger: of the run.
        name: of the text.
        results: with ``per_class``, see results.schema.json.
    """
    columns = ("name", "images", "accuracy", "precision", "f1", "mistaken_for")
    lines = ["| class | images | accuracy | precision | F1 | most often mistaken for |", "| --- |" + " ---: |" * 5]
    for row in results["per_class"]:
        cells = (row[column] for column in columns)
        texts = [
            "-" if cell is None else f"{100 * cell:.2f} %" if isinstance(cell, float) else str(cell).replace("|", r"\|")
            for cell in cells
        ]
        lines.append(f"| {' | '.join(texts)} |")
    logger.experiment.add_text(name, "\n".join(lines))


class HyperParameters(Callback):
    """TensorBoard's page of hyper-parameters: a run's settings beside what its last epoch came to.

    Args:
        config: the resolved config.
    """

    def __init__(self, config: dict[str, Any]):
        self.config = config

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        wanted = ("val/nll", f"val/{score_of(pl_module)}", "train/nll", "train/kl_per_n", "train/elbo_per_n")
        reached = {f"hp/{name}": trainer.callback_metrics[name] for name in wanted if name in trainer.callback_metrics}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and reached:
                # The step is that of the epoch's curves: a run that goes on from before it draws these again, too.
                logger.log_hyperparams(hyper_parameters(self.config), reached, trainer.global_step - 1)


def hyper_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """What tells runs apart, in one level of plain values: model without sampling, data, seed, epochs, precision."""
    parameters: dict[str, Any] = {"seed": config["seed_everything"]}

    def put(name: str, value: Any) -> None:
        if isinstance(value, dict) and "class_path" in value:
            parameters[name] = value["class_path"].split(".")[-1]
            value = value.get("init_args", {})
        if isinstance(value, dict):
            for key, inner in value.items():
                put(f"{name}.{key}", inner)
        elif value is not None:
            parameters[name] = value if isinstance(value, bool | int | float | str) else str(value)

    model = {name: value for name, value in config["model"].items() if name != "sampling"}
    data = {"data": config["data"]["class_path"].split(".")[-1]} | (config["data"].get("init_args") or {})
    data["data seed"] = data.pop("seed", None)
    length = {"epochs": config["trainer"]["max_epochs"], "precision": config["trainer"]["precision"]}
    for name, value in (model | data | length).items():
        put(name, value)
    return parameters
