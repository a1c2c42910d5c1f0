"""BayesianClassifier: the LightningModule that trains, tests and predicts with a network and a method."""

import copy
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DistributedSampler
from torchmetrics import MeanMetric
from torchmetrics.utilities.distributed import gather_all_tensors

from bnn_lightning.compression.sparsity import masks, overall_sparsity
from bnn_lightning.core.conversion import bayesianize, load_plain_state_dict, plain
from bnn_lightning.core.kernels.compiling import check_compiler
from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.core.methods import Method
from bnn_lightning.core.objective import elbo, variational_loss
from bnn_lightning.core.posteriors import SPREADS, at_least_float32
from bnn_lightning.core.running_statistics import refuse_second_runs
from bnn_lightning.core.whole_network import bayesian_layers, kl, posteriors
from bnn_lightning.evaluation.metrics import validation_metrics
from bnn_lightning.evaluation.sampler import CHUNK, Draws, Ensemble, Sampler, draws_of
from bnn_lightning.evaluation.suite import Evaluation, evaluate
from bnn_lightning.inference.kl_weights import KLWeight
from bnn_lightning.inference.kl_weights import kl_weight as as_kl_weight
from bnn_lightning.inference.learning_rates import LRSchedule
from bnn_lightning.likelihoods.categorical.calibration import Calibration
from bnn_lightning.likelihoods.categorical.predictive import log_predictive, summary
from bnn_lightning.networks import Network
from bnn_lightning.randomness import mixed, random_states, set_random_states
from bnn_lightning.training.checkpoints import (
    FORMAT_VERSION,
    KEY,
    RESUME,
    CheckpointError,
    check_format,
    read_checkpoint,
)
from bnn_lightning.training.progress import EpochSums, TrainingSummary


class BayesianClassifier(LightningModule):
    """Trains a network on the evidence lower bound, and predicts by samples from its posterior.

    Args:
        network: any network of plain torch layers.
        method: how its weights are random; null leaves the network deterministic.
        only: names of the layers that become random, as patterns such as "fc*".
        init_from: a checkpoint of the deterministic twin, whose weights are the first means; methods with a Gaussian
            posterior take sigma and the prior's mean from them too (moped_delta).
        lr: the learning rate.
        lr_schedule: how the rate changes from epoch to epoch; null keeps it constant.
        optimizer: which takes the steps.
        momentum: of sgd, such as 0.9.
        rho_lr_factor: the learning rate of rho, log_alpha or log_sigma over that of the other parameters. Adam moves
            rho by at most lr a step, so that a short run ends before sigma has found its value; 10 closes that gap.
        kl_weight: the weight of the KL term: a number (1 is the ELBO), or a schedule.
        loss_form: nll + KL/N (per_datum), or N times that (total). Adam's epsilon is 1e-8/N and 1e-8 (without a KL 1e-8
            and 1e-8 N), so that both give the same steps. 16-mixed needs per_datum.
        train_samples: weight samples in a training step.
        val_samples: weight samples in validation.
        test_samples: weight samples in test and predict.
        draws: how samples are drawn in test and predict: weights (for all images at once), local (as in training) or
            mean (no noise); null is weights, or local where noise is not on weights.
        predict_chunk: images times samples that are computed together, which bounds memory.
        test_seed: of the samples in validation, test and predict.
        members: networks in an ensemble; bnn ensemble makes them.
        compile: have inductor compile noise and KL, for speed.
        allow_shared_statistics: train a network that runs one module with running statistics, such as a batch norm,
            several times in a forward pass: a fault, whose cost can be measured so.
    """

    def __init__(
        self,
        network: Network,
        method: Method | None = None,
        only: str | list[str] = "*",
        init_from: str | None = None,
        lr: float = 1e-3,
        lr_schedule: LRSchedule | None = None,
        optimizer: Literal["adam", "sgd"] = "adam",
        momentum: float = 0.0,
        rho_lr_factor: float = 1.0,
        kl_weight: float | KLWeight = 1.0,
        loss_form: Literal["per_datum", "total"] = "per_datum",
        train_samples: int = 1,
        val_samples: int = 5,
        test_samples: int = 25,
        draws: Draws | None = None,
        predict_chunk: int = CHUNK,
        test_seed: int = 0,
        members: int = 1,
        compile: bool = False,
        allow_shared_statistics: bool = False,
    ):
        super().__init__()
        for name, number in (("lr", lr), ("rho_lr_factor", rho_lr_factor)):
            if not (math.isfinite(number) and number > 0):
                raise ValueError(f"{name} must be a positive number, got {number}.")
        for name, count in (
            ("train_samples", train_samples),
            ("val_samples", val_samples),
            ("test_samples", test_samples),
            ("predict_chunk", predict_chunk),
            ("members", members),
        ):
            if count < 1:
                raise ValueError(f"{name} must be 1 or more, got {count}.")
        if loss_form not in ("per_datum", "total"):
            raise ValueError(f"loss_form must be per_datum or total, got {loss_form!r}.")
        if optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer must be adam or sgd, got {optimizer!r}.")
        if not 0 <= momentum < 1 or (momentum and optimizer == "adam"):
            wanted = "0 with adam, which has its own" if optimizer == "adam" else "from 0 to below 1"
            raise ValueError(f"momentum must be {wanted}, got {momentum}.")
        if optimizer == "sgd" and loss_form == "total":
            raise ValueError("loss_form must be per_datum with sgd, whose steps are as long as gradients, got total.")
        if method is not None and init_from is not None:
            method = method.pretrained()
        self.init_from = init_from
        made = [network if method is None else bayesianize(network, method, only)]
        made += [copy.deepcopy(made[0]) for _ in range(members - 1)]
        self.network = made[0] if members == 1 else Ensemble(made)
        self.network.to(memory_format=torch.channels_last)
        self.compile_noise = compile
        for layer in bayesian_layers(self.network):
            layer.compiles = compile
        self.lr, self.lr_schedule, self.rho_lr_factor = lr, lr_schedule, rho_lr_factor
        self.optimizer, self.momentum = optimizer, momentum
        self.allow_shared_statistics = allow_shared_statistics
        self.kl_weight = as_kl_weight(kl_weight)
        self.loss_form: Literal["per_datum", "total"] = loss_form
        self.is_bayesian = any(True for _ in posteriors(self.network))
        if compile and not self.is_bayesian:
            warnings.warn("compile has nothing to compile in a deterministic network.", stacklevel=2)
        self.objective = "likelihood" if method is None else method.objective
        self.removes_weights = method is not None and method.removes_weights and members == 1
        # Samples of a deterministic network are all the same: one is enough.
        self.train_samples, self.val_samples, self.test_samples = (
            (train_samples, val_samples, test_samples) if self.is_bayesian else (1, 1, members)
        )
        self.draws = draws_of(self.network, draws)
        # Equally many of each member.
        self.val_samples, self.test_samples = (
            -(-samples // members) * members for samples in (self.val_samples, self.test_samples)
        )
        self.predict_chunk, self.test_seed, self.members = predict_chunk, test_seed, members
        self.num_train = 0
        """N, the number of distinct training examples; 0 before training or loading."""
        self.summary: TrainingSummary | None = None
        """Of the last complete training epoch, or of the checkpoint that was loaded."""
        self.validation: dict[str, float] = {}
        """What the last validation came to, or that of the checkpoint that was loaded."""
        self._sums: Any = None
        """EpochSums of an epoch that is not over."""
        self._resume: list[dict[str, Any]] = []
        self.val_metrics = validation_metrics()
        self.val_expected_nll = MeanMetric(nan_strategy="disable")  # by default it leaves NaN out of the mean
        self.calibration: dict[str, Calibration] = {}
        """For each way of drawing samples; from the checkpoint that was loaded."""
        self.evaluation: Evaluation | None = None
        """Of the last test."""

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> Self:
        """The trained classifier in a checkpoint of ``bnn fit``, on the CPU, in eval mode; nothing else is needed.

        Raises:
            CheckpointError: when the file is no such checkpoint.
        """
        checkpoint = read_checkpoint(path)
        if "config" not in checkpoint[KEY]:
            raise CheckpointError(f"{path} was saved from Python and holds no config; use load_from_checkpoint.")
        return cls.of_checkpoint(checkpoint)

    @classmethod
    def of_checkpoint(cls, checkpoint: dict[str, Any]) -> Self:
        """The same from what a checkpoint file holds."""
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(cls, "model")
        config = parser.parse_object({"model": checkpoint[KEY]["config"]["model"]})
        classifier = parser.instantiate_classes(config).model
        classifier.on_load_checkpoint(checkpoint)
        classifier.load_state_dict(checkpoint["state_dict"])
        return classifier.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` of one forward pass over images ``(batch, channels, height, width)``."""
        if self.members > 1:
            raise ValueError(f"members must be 1 to train or call a network, got {self.members}: train each by itself.")
        logits = self.network(channels_last(x))
        if not isinstance(logits, Tensor):
            raise ValueError(
                f"network must return logits, a tensor, got {type(logits).__name__}; "
                "a ModuleWrapper is for plain PyTorch."
            )
        return logits

    # Training

    def setup(self, stage: str) -> None:
        if self.compile_noise and self.is_bayesian:
            check_compiler(self.device)
        if stage == "fit" and self.init_from is not None:
            try:
                state = read_checkpoint(self.init_from)["state_dict"]
                load_plain_state_dict(
                    self.network,
                    {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")},
                )
            except ValueError as error:
                raise ValueError(
                    f"init_from must be a checkpoint of the deterministic twin, got {self.init_from}: {error}"
                ) from error
            self.init_from = None  # another fit goes on from here

    def configure_optimizers(self) -> OptimizerLRScheduler:
        self.num_train = self._count_training_examples()
        named = list(self.network.named_parameters())
        spreads = [parameter for name, parameter in named if name.split(".")[-1] in SPREADS]
        others = [parameter for name, parameter in named if name.split(".")[-1] not in SPREADS]
        groups: list[dict[str, Any]] = [{"params": others}]
        if spreads:
            groups.append({"params": spreads, "lr": self.lr * self.rho_lr_factor})
        # In the total form gradients are N times as large: Adam's steps are the same when epsilon is so too.
        eps = 1e-8
        if self.objective != "likelihood" and self.loss_form == "per_datum":
            eps /= self.num_train
        if self.objective == "likelihood" and self.loss_form == "total":
            eps *= self.num_train
        # In mixed precision Lightning clips no gradients of fused steps, and unscales those of fp16 itself.
        clips = self.trainer.precision == "bf16-mixed" and self.trainer.gradient_clip_val
        fused = self.trainer.precision != "16-mixed" and not clips and self.device.type in ("cpu", "cuda")
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, fused=fused)
        else:
            optimizer = torch.optim.Adam(groups, lr=self.lr, eps=eps, fused=fused)
        if self.lr_schedule is None:
            return optimizer
        scheduler: Any = self.lr_schedule.scheduler(optimizer, self._epochs)
        if "monitor" in scheduler:
            # It is stepped by a validation of its own epoch, not by one that was long ago, or before the run went on.
            scheduler["frequency"] = self.trainer.check_val_every_n_epoch or 1
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    @property
    def _epochs(self) -> int:
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise ValueError(f"max_epochs must be 1 or more, for schedules need its length, got {epochs}.")
        return epochs

    def _count_training_examples(self) -> int:
        count = getattr(self.trainer.datamodule, "num_train", None)  # type: ignore[attr-defined]
        if count is not None:
            return count
        _ = self.trainer.estimated_stepping_batches  # has Lightning set the loader up
        loader: Any = self.trainer.train_dataloader
        sampler = getattr(loader, "sampler", None)
        try:
            # A sampler may pick a part of the data set; Lightning's distributed one holds one process's share.
            if isinstance(sampler, DistributedSampler):
                return len(sampler.dataset)  # type: ignore[arg-type]
            return len(loader.dataset) if sampler is None else len(sampler)
        except (TypeError, AttributeError):
            raise ValueError(
                "num_train cannot be counted; give your data module a num_train, its number of training images."
            ) from None

    def on_train_start(self) -> None:
        if self.trainer.world_size > 1:
            # All processes start from one seed, for equal initial weights; from here on each draws noise of its own,
            # and other noise than before where more or fewer of them go on with a run.
            torch.manual_seed(mixed(torch.initial_seed(), self.global_rank, self.global_step))
        if self.trainer.ckpt_path and self._resume and self._resume[0]["sums"]:
            sums = [part["sums"] for part in self._resume]
            self._sums = EpochSums.of_records(sums, self.global_rank, self.trainer.world_size)
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LambdaLR):
                # A run that goes on with more epochs has another schedule than the one its checkpoint was saved under.
                rates = zip(config.scheduler.optimizer.param_groups, config.scheduler.base_lrs, strict=True)
                for (group, base), factor in zip(rates, config.scheduler.lr_lambdas, strict=True):
                    group["lr"] = base * factor(self.current_epoch)

        self._watched = [] if self.allow_shared_statistics else refuse_second_runs(self.network)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Only here has all else that draws random numbers before a run's first step done so.
        if self._resume and self.trainer.ckpt_path:
            if len(self._resume) == self.trainer.world_size:
                set_random_states(self._resume[self.global_rank]["random"], self.device)
            # Validation may lie behind the step that a run goes on from.
            self.trainer.callback_metrics.update({key: torch.tensor(value) for key, value in self.validation.items()})
            # Lightning takes the whole epoch for one that was done before, and would not step a plateau after it.
            self.trainer.fit_loop.restarting = False
        self._resume = []

    def on_train_epoch_start(self) -> None:
        # The rate is read here, because the schedule moves on before the epoch is over.
        self._sums = EpochSums(lr=self.trainer.optimizers[0].param_groups[0]["lr"])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, labels = batch
        logits = torch.stack([self(x) for _ in range(self.train_samples)])
        nll = F.cross_entropy(_precise(logits.flatten(0, 1)), labels.repeat(self.train_samples))
        divergence = kl(self.network)
        weight = self._kl_weight_now(batch_idx)
        loss = variational_loss(nll, divergence, self.num_train, weight)
        self._sums.add(nll, logits, labels, divergence, weight)
        return loss if self.loss_form == "per_datum" else self.num_train * loss

    def _kl_weight_now(self, batch_idx: int) -> float:
        if math.isinf(self.trainer.num_training_batches):
            raise ValueError("the training loader must have a length, because the KL weight is a function of the step.")
        accumulated = self.trainer.accumulate_grad_batches
        steps = math.ceil(self.trainer.num_training_batches / accumulated)
        return self.kl_weight(self.current_epoch, batch_idx // accumulated, steps, self._epochs)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for hook in self._watched:
            hook.remove()
        self._watched = []
        # The epoch's means are closed here, before validation and every callback's end of epoch, which read them.
        if self.trainer.is_last_batch:
            self._close_training_epoch()

    def _close_training_epoch(self) -> None:
        sums, self._sums = self._sums, None
        sums.totals = self.trainer.strategy.reduce(sums.totals, reduce_op="sum")
        nll, accuracy, divergence, weight = sums.means()
        self.summary = TrainingSummary(
            epoch=self.current_epoch,
            num_train=self.num_train,
            num_classes=sums.num_classes,
            nll=nll,
            accuracy=accuracy,
            kl=divergence,
            kl_weight=weight,
            elbo_per_n=elbo(nll, divergence, self.num_train) if self.objective != "likelihood" else None,
            is_bound=self.objective == "elbo",
            sparsity=overall_sparsity(self.network) if self.removes_weights else None,
        )
        values = {"nll": nll, "accuracy": accuracy} | self._objective_values(nll, divergence, weight)
        if self.summary.sparsity is not None:
            values["sparsity"] = self.summary.sparsity
        values = {f"train/{name}": value for name, value in values.items()} | {"lr": sums.lr}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)

    def _objective_values(self, nll: float, divergence: float, weight: float) -> dict[str, float]:
        """Loss, KL and ELBO, under the names they are logged by; ``nll`` is the mean over weight samples."""
        if self.objective == "likelihood":
            return {"loss": nll}
        return {
            "loss": variational_loss(nll, divergence, self.num_train, weight),
            "kl": divergence,
            "kl_per_n": divergence / self.num_train,
            "kl_weight": weight,
            "elbo_per_n": elbo(nll, divergence, self.num_train),
        }

    # Evaluation

    def sampler(self, samples: int, draws: Draws | None = None) -> Sampler:
        """Samples of this network's logits as test draws them; null ``draws`` is the classifier's own way."""
        return Sampler(self.network, samples, draws or self.draws, self.test_seed, self.predict_chunk)

    def on_validation_epoch_start(self) -> None:
        self.val_metrics.reset()
        self.val_expected_nll.reset()
        # Training passes, as in the objective; seeded, so that validation leaves the noise of training as it was.
        self._val_sampler = self.sampler(self.val_samples, "local")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, labels = batch
        logits = self._val_sampler(channels_last(x), batch_idx)
        self.val_metrics.update(log_predictive(logits), labels)
        nll = F.cross_entropy(_precise(logits.flatten(0, 1)), labels.repeat(len(logits)))
        self.val_expected_nll.update(nll, len(labels))

    def on_validation_epoch_end(self) -> None:
        values = {name: value.item() for name, value in self.val_metrics.compute().items()}
        if self.num_train:
            # At KL weight 1, whatever weight is training: a schedule must not move what runs are compared by.
            divergence = kl(self.network).item() / self.members
            values |= self._objective_values(self.val_expected_nll.compute().item(), divergence, weight=1.0)
        values = {f"val/{name}": value for name, value in values.items()}
        if not self.trainer.sanity_checking:
            self.validation = values
        self.log_dict(values)

    def on_test_epoch_start(self) -> None:
        self._outputs: dict[int, list[dict[str, Tensor]]] = {}
        self._sampler = self.sampler(self.test_samples)
        self._mean_sampler = self.sampler(1, "mean") if self.draws != "mean" else None
        self._kept_weights = plain(self.network, masks(self.network)).eval() if self.removes_weights else None

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        x, labels = channels_last(batch[0]), batch[1]
        logits = _precise(self._sampler(x, batch_idx))
        found = summary(logits) | {"labels": labels}
        if dataloader_idx == 0:
            found["logits"] = logits.transpose(0, 1)
            if self._mean_sampler is not None:
                if len(logits) > 1:
                    found["log_probs_one_sample"] = log_predictive(logits[:1])
                found["log_probs_mean_weights"] = log_predictive(self._mean_sampler(x))
            if self._kept_weights is not None:
                found["log_probs_kept_weights"] = log_predictive(self._kept_weights(x).unsqueeze(0))
        self._outputs.setdefault(dataloader_idx, []).append({name: part.cpu() for name, part in found.items()})

    def on_test_epoch_end(self) -> None:
        names = list(getattr(self.trainer.datamodule, "test_sets", {})) or ["test"]  # type: ignore[attr-defined]
        if len(self._outputs) > len(names):
            raise ValueError(
                f"test_dataloader must give one loader, got {len(self._outputs)}; test_sets names several."
            )
        self.tested = {
            names[index]: {name: self._gathered(torch.cat([part[name] for part in parts])) for name in parts[0]}
            for index, parts in self._outputs.items()
        }
        self.evaluation = evaluate(self.tested, self.calibration.get(self.draws), self.members)
        self.log_dict(self.evaluation.flat())
        del self._outputs, self._sampler, self._mean_sampler, self._kept_weights

    def _gathered(self, mine: Tensor) -> Tensor:
        """The rows of all processes in the order of the data set, of which each process has every n-th."""
        if not torch.distributed.is_initialized():
            return mine
        parts = [part.cpu() for part in gather_all_tensors(mine.to(self.device))]
        places = [torch.arange(len(part)) * len(parts) + rank for rank, part in enumerate(parts)]
        return torch.cat(parts)[torch.cat(places).argsort()]

    def on_predict_epoch_start(self) -> None:
        self._sampler = self.sampler(self.test_samples)

    def predict_step(self, batch: Tensor | Sequence[Tensor], batch_idx: int) -> dict[str, Tensor]:
        """For each image of a batch what :func:`bnn_lightning.likelihoods.categorical.predictive.summary` says."""
        x = batch if isinstance(batch, Tensor) else batch[0]
        return summary(self._sampler(channels_last(x), batch_idx))

    def calibrated(self, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Calibration]:
        """The calibration of each way of drawing samples, from labelled images that trained and selected nothing."""
        ways: list[Draws] = list(dict.fromkeys(["mean", draws_of(self.network, "local"), draws_of(self.network)]))
        samplers = {way: self.sampler(self.test_samples, way) for way in ways}
        log_probs: dict[str, list[Tensor]] = {way: [] for way in ways}
        labels = []
        for batch_idx, (x, of_batch) in enumerate(batches):
            x = channels_last(x.to(self.device))
            for way, sampler in samplers.items():
                with self.trainer.precision_plugin.forward_context():
                    log_probs[way].append(log_predictive(sampler(x, batch_idx)).cpu())
            labels.append(of_batch.cpu())
        if not labels:
            return {}
        target = self._gathered(torch.cat(labels))
        return {way: Calibration.fit(self._gathered(torch.cat(parts)), target) for way, parts in log_probs.items()}

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        record = checkpoint.setdefault(KEY, {})
        record["format_version"] = FORMAT_VERSION
        record["training"] = None if self.summary is None else asdict(self.summary)
        record["validation"] = self.validation
        describe = getattr(self.trainer.datamodule, "describe", None)  # type: ignore[attr-defined]
        record["data"] = describe() if describe else None
        mine = {"random": random_states(self.device), "sums": self._sums and self._sums.record()}
        if self.trainer.ckpt_path and len(self._resume) == self.trainer.world_size:
            mine = self._resume[self.global_rank]  # not taken up yet
        checkpoint[RESUME] = [mine]
        if torch.distributed.is_initialized():
            checkpoint[RESUME] *= torch.distributed.get_world_size()
            torch.distributed.all_gather_object(checkpoint[RESUME], mine)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        training = check_format(checkpoint)["training"]
        self.validation = checkpoint[KEY]["validation"]
        self._resume = checkpoint.get(RESUME, [])
        if training is not None:
            self.summary = TrainingSummary(**training)
            self.num_train = self.summary.num_train
        calibration = checkpoint[KEY].get("calibration") or {}
        self.calibration = {way: Calibration(**record) for way, record in calibration.items()}


def _precise(logits: Tensor) -> Tensor:
    """Half precision is too coarse for probabilities."""
    return logits.to(at_least_float32(logits))
