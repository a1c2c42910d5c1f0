"""BayesianModule: the LightningModule that trains, tests and predicts with the parts that it is given."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from bnn_lightning.checkpoints.own_modules import importable
from bnn_lightning.checkpoints.parts import Parts, calibrations_of
from bnn_lightning.checkpoints.record import Record, check_format
from bnn_lightning.checkpoints.summary import TrainingSummary
from bnn_lightning.compression.sparsity import masks, overall_sparsity
from bnn_lightning.core.conversion import to_plain, with_versions
from bnn_lightning.core.input_format import in_format_for
from bnn_lightning.core.kernels.compiling import check_compiler
from bnn_lightning.core.methods import Method
from bnn_lightning.core.moments import MomentsError
from bnn_lightning.core.objective import objective_values
from bnn_lightning.core.running_statistics import forbid_shared_batch_norm
from bnn_lightning.core.whole_network import bayesian_layers, kl, objective_of, random_tensors
from bnn_lightning.evaluation.collect import Collector, calibrations
from bnn_lightning.evaluation.draws import Draws, Sampling, draws_of, pooled_samples
from bnn_lightning.evaluation.metrics import ValidationMetrics
from bnn_lightning.evaluation.sampler import Sampler
from bnn_lightning.evaluation.suite import Evaluation, evaluate
from bnn_lightning.inference import Inference, Variational
from bnn_lightning.inference.base import checked_outputs
from bnn_lightning.likelihoods import Categorical, Likelihood
from bnn_lightning.networks import Network
from bnn_lightning.training.batches import batches_on
from bnn_lightning.training.facts import (
    loss_weights,
    share_of_step,
    step_of,
    steps_of_run,
    training_batches,
    training_facts,
)
from bnn_lightning.training.loading import from_record, start_from_weights
from bnn_lightning.training.misuse import bounds_of, check_prepared, refuse_without_trainer
from bnn_lightning.training.progress import EpochSums
from bnn_lightning.training.rates import follow_schedule, rates_of, scale_rates
from bnn_lightning.training.resume import Resume, put_record


class BayesianModule(LightningModule):
    """Trains a network, and predicts by samples from its posterior.

    Args:
        network: any network of plain torch layers.
        method: how its weights are random; null leaves the network deterministic.
        inference: how the posterior is learnt.
        likelihood: what the network's outputs mean, and what a label is.
        sampling: how samples are drawn in validation, test and predict.
        only: names of the layers that become random, as patterns such as "fc*".
        init_from: a checkpoint of the deterministic twin, or a file with the state_dict of the network or of one with
            another head; its weights are the first means, and methods with a Gaussian posterior take sigma and the
            prior's mean from them too (moped_delta).
        members: networks in an ensemble; bnn ensemble makes them.
        freeze: names of layers, or of what holds layers, as patterns such as "layer1*", that stay as they are:
            deterministic, not trained, with batch norm at its running statistics.
        input_shape: channels, height and width of an image, which the data give; lazy layers need it.
        compile: have inductor compile noise and KL, for speed.
        allow_shared_statistics: train a network that runs one module with running statistics, such as a batch norm,
            several times in a forward pass: a fault, whose cost can be measured so.
    """

    def __init__(
        self,
        network: Network,
        method: Method | None = None,
        inference: Inference = Variational(),  # noqa: B008
        likelihood: Likelihood = Categorical(),  # noqa: B008
        sampling: Sampling = Sampling(),  # noqa: B008
        only: str | list[str] = "*",
        init_from: str | None = None,
        freeze: str | list[str] | None = None,
        input_shape: list[int] | None = None,
        members: int = 1,
        compile: bool = False,
        allow_shared_statistics: bool = False,
    ):
        super().__init__()
        self._method = method  # of layers that init_from has no weights for
        parts = Parts(
            network, method, inference, likelihood, sampling, only, init_from, freeze, input_shape, members, compile
        )
        self.network, self.frozen = parts.build()
        self.inference, self.likelihood, self.sampling = inference, likelihood, sampling
        self.init_from, self.members, self.compile_noise = init_from, members, compile
        self.allow_shared_statistics = allow_shared_statistics
        layers = bayesian_layers(self.network)
        self.is_bayesian = bool(layers)
        self.objective = objective_of(self.network)
        self.removes_weights = members == 1 and any(layer.method.removes_weights for layer in layers)
        self.draws = draws_of(self.network, sampling.draws)
        # Samples of a deterministic network are all the same: one of each member is enough.
        self.val_samples, self.test_samples = (
            pooled_samples(samples if self.is_bayesian else 1, members)
            for samples in (sampling.val_samples, sampling.test_samples)
        )
        self.lr = inference.lr
        """The learning rate. Setting it, as LearningRateFinder does, scales all rates when training starts."""
        self.num_train = 0
        """N, the number of distinct training examples; 0 before training or loading."""
        self.summary: TrainingSummary | None = None
        """Of the last complete training epoch, or of the checkpoint that was loaded."""
        self.validation: dict[str, float] = {}
        """Metrics of the last validation, or of the one in the checkpoint that was loaded."""
        self.validated_at: int | None = None
        """Optimiser steps that it came after."""
        self.calibration: dict[str, Any] = {}
        """For each way of drawing samples; from the checkpoint that was loaded."""
        self.evaluation: Evaluation | None = None
        """Of the last test."""
        self.val_metrics = ValidationMetrics(likelihood)
        # They are large, and equal in all processes: none has to send its own at each step.
        self._ddp_params_and_buffers_to_ignore = [
            f"network.{name}.{buffer}"
            for name, posterior in random_tensors(self.network)
            for buffer, _ in posterior.named_buffers()
        ]
        self._trained_likelihood = likelihood
        """Whose nll is in the training loss: with class weights and label smoothing, which nothing else has."""
        self._bounds: tuple[float, float] | None = None
        """Of images as the checkpoint that was loaded has them."""
        self._sums: EpochSums | None = None
        """Of an epoch that is not over."""
        self._resume = Resume()

    @classmethod
    def from_checkpoint(cls, path: str | Path, code: str | Path | None = None) -> Self:
        """The trained module in a checkpoint of ``bnn fit``, on the CPU, in eval mode; nothing else is needed.

        Args:
            path: the file, or the bare name of one that comes with the package, or a run's folder, of which best.ckpt
                is read, else last.ckpt.
            code: a folder of your own modules, as for :meth:`bnn_lightning.Predictor.load`.

        Raises:
            CheckpointError: when the file is no such checkpoint, or cannot be used.
        """
        with importable(code):
            return from_record(cls, Record.read(path))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(batch, outputs)`` of one forward pass over images ``(batch, channels, height, width)``.

        For training and for loops of your own: the images must be normalised as the checkpoint says, and of a Bayesian
        network it is one random draw. To predict, use :class:`bnn_lightning.Predictor`.

        Raises:
            ValueError: when the images are uint8.
        """
        if self._trainer is None and not self.training:
            check_prepared(x, self._bounds)
        return checked_outputs(self.network, in_format_for(self.network, x))

    # Training

    def setup(self, stage: str) -> None:
        if self.compile_noise and self.is_bayesian:
            check_compiler(self.device)
        describe = getattr(self.trainer.datamodule, "describe", None)  # type: ignore[attr-defined]
        if stage == "fit" and describe is not None:
            self.know_labels(describe())
        if stage == "fit" and self.init_from is not None:
            if missing := start_from_weights(self.network, self.init_from, self._method):
                rank_zero_warn(missing, stacklevel=2)
            self.init_from = None  # another fit goes on from here

    def know_labels(self, description: dict[str, Any]) -> None:
        """Takes over what a data module, or a checkpoint, says about its labels, such as their units."""
        self.likelihood = self.val_metrics.likelihood = self.likelihood.for_data(description)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.frozen:
            self.network.get_submodule(name).eval()  # batch norm goes by its running statistics, and leaves them
        return self

    def configure_optimizers(self) -> OptimizerLRScheduler:
        facts = training_facts(self.trainer, self.device)
        self.num_train = facts.num_train
        self._trained_likelihood = self.likelihood.for_training(loss_weights(self.trainer.datamodule, self.device))  # type: ignore[attr-defined]
        optimizer = self.inference.make_optimizer(self.network, facts)
        scheduler: Any = self.inference.make_scheduler(optimizer, facts.epochs)
        self._rates = rates_of(optimizer)
        if scheduler is None:
            return optimizer
        if "monitor" in scheduler:
            # It is stepped by a validation of its own epoch, not by one that was long ago, or before the run went on.
            scheduler["frequency"] = self.trainer.check_val_every_n_epoch or 1
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_train_start(self) -> None:
        self.train()  # Lightning leaves the modes to whoever has set them, and frozen parts have one of their own
        self._sums = self._resume.start(self.trainer)
        # A run that goes on has it in its optimiser's state; the finder too leaves the path of a checkpoint behind.
        if self.lr != self.inference.lr and self.trainer.global_step == 0:
            scale_rates(self.trainer, self._rates, self.lr / self.inference.lr)
        self.inference.start(self.trainer.optimizers[0], steps_of_run(self.trainer))
        follow_schedule(self.trainer)
        self._watched = [] if self.allow_shared_statistics else forbid_shared_batch_norm(self.network)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._resume.take_up(self.trainer, self.device, self.validation)

    def on_train_epoch_start(self) -> None:
        # The rate is read here, because the schedule moves on before the epoch is over.
        self._sums = EpochSums(lr=self.trainer.optimizers[0].param_groups[0]["lr"])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = in_format_for(self.network, batch[0]), batch[1]
        step = step_of(self.trainer, self.num_train, batch_idx)
        terms = self.inference.loss(self.network, x, y, self._trained_likelihood, step)
        if self.global_step == 0 and batch_idx == 0:  # of a run from Python; the command line has probed before
            self.likelihood.check(terms.outputs[0], y, None)
        if self._trained_likelihood is not self.likelihood:
            terms = replace(terms, nll=self.likelihood.nll(terms.outputs.detach(), y))  # for the logs
        assert self._sums is not None  # since the epoch began
        self._sums.add(terms, y, self.likelihood, step.step)
        return terms.loss * share_of_step(self.trainer, batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for hook in self._watched:
            hook.remove()
        self._watched = []
        # The epoch's means are closed here, before validation and every callback's end of epoch, which read them.
        if self.trainer.is_last_batch:
            self.inference.after_epoch(self.network)
            if self.current_epoch + 1 == self.trainer.max_epochs:
                with self.trainer.precision_plugin.forward_context():
                    batches = training_batches(self.trainer, self.network)
                    self.inference.after_fit(self.network, batches, self._trained_likelihood)
            self._close_training_epoch()

    def _close_training_epoch(self) -> None:
        sums: Any = self._sums
        self._sums = None
        sums.totals = self.trainer.strategy.reduce(sums.totals, reduce_op="sum")
        sparsity = overall_sparsity(self.network) if self.removes_weights else None
        departures = [*getattr(self.trainer.datamodule, "departures", []), *self.likelihood.departures]  # type: ignore[attr-defined]
        self.summary = sums.summary(
            self.current_epoch, self.num_train, self.likelihood, self.objective, sparsity, departures
        )
        values = self.summary.values(self.likelihood.score, self.objective)
        values = {f"train/{name}": value for name, value in values.items()} | {"lr": sums.lr}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)

    # Evaluation

    def sampler(self, samples: int, draws: Draws | None = None) -> Sampler:
        """Samples of this network's outputs, in validation, test and predict; null ``draws`` is the module's own."""
        return Sampler(self.network, samples, draws or self.draws, self.sampling.seed, self.sampling.chunk)

    def on_validation_epoch_start(self) -> None:
        self.val_metrics.reset()
        # Training passes, as in the objective; seeded, so that validation leaves the noise of training as it was.
        self._sampler = self.sampler(self.val_samples, "local")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        # The images of several loaders are validated as one set.
        self.val_metrics.update(self._sampler(batch[0], batch_idx), batch[1])

    def on_validation_epoch_end(self) -> None:
        values = self.val_metrics.compute()
        if self.num_train:
            # At KL weight 1, whatever weight is training: a schedule must not move what runs are compared by.
            divergence = kl(self.network).item() / self.members
            nll = self.val_metrics.expected_nll.compute().item()
            values |= objective_values(self.objective, nll, divergence, self.num_train)
        values = {f"val/{name}": value for name, value in values.items()}
        if not self.trainer.sanity_checking:
            self.validation, self.validated_at = values, self.trainer.global_step
        self.log_dict(values)

    def on_test_epoch_start(self) -> None:
        others = {"mean_weights": self.sampler(1, "mean")} if self.draws != "mean" else {}
        if self.removes_weights:
            others["kept_weights"] = Sampler(to_plain(self.network, masks(self.network)), 1)
        self._collector = Collector(self.likelihood, self.sampler(self.test_samples), others, self.device)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._collector.add(batch[0], batch[1], batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        names = list(getattr(self.trainer.datamodule, "test_sets", {})) or ["test"]  # type: ignore[attr-defined]
        self.tested = self._collector.gather(names)
        self.evaluation = evaluate(self.tested, self.likelihood, self.calibration.get(self.draws), self.members)
        self.log_dict(self.evaluation.flat())
        del self._collector

    def on_predict_epoch_start(self) -> None:
        self._sampler = self.sampler(self.test_samples)

    def predict_step(self, batch: Tensor | Sequence[Tensor], batch_idx: int) -> dict[str, Tensor]:
        """For each image of a batch what the likelihood's summary says of its samples; called by a Trainer alone.

        Without one, :class:`bnn_lightning.Predictor` predicts.
        """
        refuse_without_trainer(self)
        x = batch if isinstance(batch, Tensor) else batch[0]
        return self.likelihood.summary(self._sampler(x, batch_idx))

    def calibrated(self, data: LightningDataModule) -> dict[str, Any]:
        """The calibration of each way of drawing samples, from the calibration half of the hold-out of ``data``."""
        kinds: list[Draws] = ["mean", draws_of(self.network, "local"), draws_of(self.network)]
        samplers: Any = {kind: self.sampler(self.test_samples, kind) for kind in dict.fromkeys(kinds)}
        if self.is_bayesian:
            with suppress(MomentsError):  # a network without moments is not asked for them
                samplers["moments"] = self.sampler(self.test_samples, "moments")
        precision = self.trainer.precision_plugin
        loader: Any = getattr(data, "calibration_dataloader", list)()
        batches = batches_on(self.device, loader, data, precision)
        return calibrations(self.likelihood, samplers, batches, self.device, precision.forward_context)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        put_record(self, checkpoint)
        self._resume.save(self.trainer, self.device, self._sums, checkpoint)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        # One that was rebuilt, such as that of an ensemble, lacks the versions that some modules read.
        return super().load_state_dict(with_versions(state_dict, state_dict, self.state_dict()), strict, assign)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint = check_format(checkpoint)
        record = Record.from_contents(checkpoint)
        self._resume = Resume.from_contents(checkpoint)
        self.validation, self.validated_at = record.validation, record.validated_at
        self.know_labels(record.data or {})
        self._bounds = bounds_of(record.data)
        if record.training is not None:
            self.summary, self.num_train = record.training, record.training.num_train
        self.calibration = calibrations_of(record, self.likelihood)
