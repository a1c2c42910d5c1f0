"""Variational inference: maximises the ELBO by stochastic gradients, with any optimiser of torch."""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from bnn_lightning.core.objective import variational_loss
from bnn_lightning.core.whole_network import kl, objective_of, width_parameters
from bnn_lightning.inference.base import Inference, Step, Terms, TrainingFacts, sampled_outputs
from bnn_lightning.inference.kl_weights import KLWeight, kl_weight
from bnn_lightning.inference.learning_rates import LRSchedule
from bnn_lightning.likelihoods.base import Likelihood

MakeOptimizer = Callable[[Iterable], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler]


@dataclass(frozen=True)
class Variational(Inference):
    """Minimises nll + kl_weight * KL/N by an optimiser of torch, with one or several noise samples in each step.

    Gradients are those of the reparameterisation trick (Kingma & Welling 2014, arXiv:1312.6114), for weights Blundell
    et al. 2015 (arXiv:1505.05424). For a deterministic network, which has no KL, the loss is the nll.

    Args:
        lr: the learning rate; null takes the optimiser's default.
        optimizer: any class of torch.optim, or your own, with its settings. Weight decay applies to the means and to
            the weights of plain layers, not to the width parameters of posteriors such as rho.
        lr_schedule: LinearDecay, Cosine or Plateau; or any class of torch.optim.lr_scheduler, stepped once an epoch.
            null keeps the rate constant.
        rho_lr_factor: learning rate of the width parameters (rho, log_alpha, log_sigma2 or log_sigma), divided by that
            of the other parameters. Adam moves rho by about lr a step, so that in a short run sigma does not reach its
            optimum; a factor of 10 corrects that.
        kl_weight: the weight of the KL: a number (1 is the ELBO) or a schedule.
        loss_form: per_datum is nll + KL/N, total is N times that. The default epsilon of Adam-like optimisers (1e-8) is
            meant for the total form, or for the nll where there is no KL; it is divided or multiplied by N where the
            form is the other one, so that both forms take the same steps. An epsilon that you set is not changed.
            total cannot be used with 16-mixed.
        samples: noise samples in each training step.
    """

    fixed_in_a_run = ("lr", "optimizer", "rho_lr_factor")

    lr: float | None = None
    optimizer: MakeOptimizer = Adam
    lr_schedule: LRSchedule | MakeScheduler | None = None
    rho_lr_factor: float = 1.0
    kl_weight: float | KLWeight = 1.0
    loss_form: Literal["per_datum", "total"] = "per_datum"
    samples: int = 1

    def __post_init__(self) -> None:
        for name in ("lr", "rho_lr_factor"):
            number = getattr(self, name)
            if number is not None and not (math.isfinite(number) and number > 0):
                raise ValueError(f"{name} must be a positive number, got {number}.")
        if self.samples < 1:
            raise ValueError(f"samples must be 1 or more, got {self.samples}.")
        if self.loss_form not in ("per_datum", "total"):
            raise ValueError(f"loss_form must be per_datum or total, got {self.loss_form!r}.")
        object.__setattr__(self, "kl_weight", kl_weight(self.kl_weight))
        try:
            optimizer = self.optimizer([nn.Parameter(torch.zeros(1))])
            self.optimizer([{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))]}])
        except (TypeError, ValueError) as error:
            raise ValueError(f"optimizer must be one of torch's for several groups of parameters: {error}") from error
        optimizer_lr, default_lr = optimizer.defaults.get("lr"), _default_argument(optimizer, "lr")
        if self.lr is None:
            object.__setattr__(self, "lr", optimizer_lr)
        elif optimizer_lr not in (default_lr, self.lr):
            raise ValueError(f"lr must be one number for inference and optimizer, got {self.lr} and {optimizer_lr}.")
        if self.loss_form == "total" and not _divides_by_gradients(optimizer):
            raise ValueError(
                f"loss_form must be per_datum with {type(optimizer).__name__}, whose steps are as long as gradients, "
                "got total."
            )

    def make_optimizer(self, net: nn.Module, facts: TrainingFacts) -> Optimizer:
        widths = width_parameters(net)
        width_ids = {id(parameter) for parameter in widths}
        means = [parameter for parameter in net.parameters() if id(parameter) not in width_ids]
        groups = [{"params": [each for each in parameters if each.requires_grad]} for parameters in (means, widths)]
        if not any(group["params"] for group in groups):
            raise ValueError("network must have parameters to train, got one whose parameters are all frozen.")
        if not widths:
            groups.pop()
        optimizer = self.optimizer(groups)
        for group, factor in zip(optimizer.param_groups, (1.0, self.rho_lr_factor), strict=False):
            group["lr"] = self.lr * factor  # type: ignore[operator]  # __post_init__ has replaced None
            if _divides_by_gradients(optimizer) and group["eps"] == _default_argument(optimizer, "eps"):
                group["eps"] = self._scaled_eps(group["eps"], objective_of(net) != "likelihood", facts.num_train)
            can_fuse = facts.can_fuse and isinstance(optimizer, Adam | SGD)
            if can_fuse and group["fused"] is None and group["foreach"] is None:
                group["fused"] = True
        for group in optimizer.param_groups[1:]:
            if "weight_decay" in group:
                group["weight_decay"] = 0.0
        return optimizer

    def _scaled_eps(self, eps: float, has_kl: bool, num_train: int) -> float:
        """Epsilon scaled like the gradients: ``eps`` is for those of N * nll + KL, or of nll where there is no KL."""
        if has_kl:
            return eps / num_train if self.loss_form == "per_datum" else eps
        return eps * num_train if self.loss_form == "total" else eps

    def make_scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any] | None:
        if self.lr_schedule is None:
            return None
        if isinstance(self.lr_schedule, LRSchedule):
            return self.lr_schedule.scheduler(optimizer, epochs)
        scheduler: Any = self.lr_schedule(optimizer)
        _check_length(self.lr_schedule, epochs)
        monitor = {"monitor": "val/nll"} if isinstance(scheduler, ReduceLROnPlateau) else {}
        return {"scheduler": scheduler} | monitor

    @property
    def watches_validation(self) -> bool:
        scheduler = self.make_scheduler(self.optimizer([nn.Parameter(torch.zeros(1))]), epochs=1)
        return scheduler is not None and "monitor" in scheduler

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, likelihood: Likelihood, step: Step) -> Terms:
        outputs = sampled_outputs(net, x, self.samples)
        nll, divergence = likelihood.nll(outputs, y), kl(net)
        weight = self.kl_weight(step.epoch, step.step, step.steps, step.epochs)  # type: ignore[operator]
        loss = variational_loss(nll, divergence, step.num_train, weight)
        if self.loss_form == "total":
            loss = step.num_train * loss
        return Terms(loss, nll, divergence, weight, outputs)

    def is_settled(self, epoch: int, epochs: int) -> bool:
        return super().is_settled(epoch, epochs) and self.kl_weight.settled(epoch, epochs)  # type: ignore[union-attr]


def _check_length(schedule: MakeScheduler, epochs: int) -> None:
    """Steps a schedule through a run of ``epochs``, for an optimiser of its own.

    Raises:
        ValueError: when it ends before the run.
    """
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimizer)
    if isinstance(scheduler, ReduceLROnPlateau):
        return
    try:
        for _ in range(epochs):
            optimizer.step()
            scheduler.step()
    except ValueError as error:
        raise ValueError(
            f"lr_schedule must last for the {epochs} epochs of the run, a step for each, got one that does not: {error}"
        ) from error


def _divides_by_gradients(optimizer: Optimizer) -> bool:
    """Whether its steps are gradients over their size plus epsilon, so that only epsilon knows how large they are."""
    return isinstance(optimizer.defaults.get("eps"), float) and not isinstance(optimizer, Adadelta)


def _default_argument(optimizer: Optimizer, name: str) -> Any:
    """The default of an argument of the optimiser's class; None if it has no such argument."""
    parameter = inspect.signature(type(optimizer)).parameters.get(name)
    return None if parameter is None else parameter.default
