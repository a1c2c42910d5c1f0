"""Variational inference: the ELBO by stochastic gradients, with any optimiser."""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from bnn_lightning.core.objective import variational_loss
from bnn_lightning.core.whole_network import kl, objective_of, width_parameters
from bnn_lightning.inference.base import Inference, Step, Terms, TrainingFacts, checked_outputs
from bnn_lightning.inference.kl_weights import KLWeight, kl_weight
from bnn_lightning.inference.learning_rates import LRSchedule, Plateau
from bnn_lightning.likelihoods.base import Likelihood

MakeOptimizer = Callable[[Iterable], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler]


@dataclass(frozen=True)
class Variational(Inference):
    """Minimises nll + kl_weight KL/N by an optimiser of torch, with one draw of the noise or several.

    The reparameterisation gradient of Kingma & Welling 2014 (arXiv:1312.6114); for weights Blundell et al. 2015
    (arXiv:1505.05424). A deterministic network has no KL, and the loss is its nll.

    Args:
        lr: the learning rate; null is the optimiser's own.
        optimizer: any class of torch.optim, or your own, with its settings. Weight decay is for means and the weights
            of plain layers: what says how wide a posterior is has none.
        lr_schedule: LinearDecay, Cosine or Plateau, which know the run's length; or any class of
            torch.optim.lr_scheduler, stepped once an epoch. Null keeps the rate constant.
        rho_lr_factor: the learning rate of rho, log_alpha or log_sigma over that of the other parameters. Adam moves
            rho by at most lr a step, so that a short run ends before sigma has found its value; 10 closes that gap.
        kl_weight: the weight of the KL term: a number (1 is the ELBO), or a schedule.
        loss_form: nll + KL/N (per_datum), or N times that (total). The epsilon of Adam and its relatives is 1e-8/N and
            1e-8 (without a KL 1e-8 and 1e-8 N), so that both give the same steps; one that is set stays as it is.
            16-mixed needs per_datum.
        samples: weight samples in a training step.
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
        optimizer = self.optimizer([nn.Parameter(torch.zeros(1))])
        own_lr, usual_lr = optimizer.defaults.get("lr"), _default(optimizer, "lr")
        if self.lr is None:
            object.__setattr__(self, "lr", own_lr)
        elif own_lr not in (usual_lr, self.lr):
            raise ValueError(f"lr must be one number for inference and optimizer, got {self.lr} and {own_lr}.")
        if self.loss_form == "total" and "eps" not in optimizer.defaults:
            raise ValueError(
                f"loss_form must be per_datum with {type(optimizer).__name__}, whose steps are as long as gradients, "
                "got total."
            )

    def make_optimizer(self, net: nn.Module, facts: TrainingFacts) -> Optimizer:
        widths = width_parameters(net)
        ids = {id(parameter) for parameter in widths}
        groups = [{"params": [parameter for parameter in net.parameters() if id(parameter) not in ids]}]
        if widths:
            groups.append({"params": widths})
        optimizer = self.optimizer(groups)
        for group, factor in zip(optimizer.param_groups, (1.0, self.rho_lr_factor), strict=False):
            group["lr"] = self.lr * factor  # type: ignore[operator]  # null has become the optimiser's own
            if isinstance(group.get("eps"), float) and group["eps"] == _default(optimizer, "eps"):
                group["eps"] = self._scaled(group["eps"], objective_of(net) != "likelihood", facts.num_train)
            if "fused" in group and group["fused"] is None and group.get("foreach") is None and facts.can_fuse:
                group["fused"] = True
        for group in optimizer.param_groups[1:]:
            if "weight_decay" in group:
                group["weight_decay"] = 0.0
        return optimizer

    def _scaled(self, eps: float, has_kl: bool, num_train: int) -> float:
        """Epsilon in proportion to gradients: it is meant for those of N nll + KL, or of nll where there is no KL."""
        if has_kl:
            return eps / num_train if self.loss_form == "per_datum" else eps
        return eps * num_train if self.loss_form == "total" else eps

    def make_scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any] | None:
        if self.lr_schedule is None:
            return None
        if isinstance(self.lr_schedule, LRSchedule):
            return self.lr_schedule.scheduler(optimizer, epochs)
        scheduler: Any = self.lr_schedule(optimizer)
        monitor = {"monitor": "val/nll"} if isinstance(scheduler, ReduceLROnPlateau) else {}
        return {"scheduler": scheduler} | monitor

    @property
    def watches_validation(self) -> bool:
        made_of = getattr(self.lr_schedule, "args", ())  # of a partial function, as the command line makes it
        return isinstance(self.lr_schedule, Plateau) or ReduceLROnPlateau in (self.lr_schedule, *made_of)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, likelihood: Likelihood, step: Step) -> Terms:
        outputs = torch.stack([checked_outputs(net, x) for _ in range(self.samples)])
        nll, divergence = likelihood.nll(outputs, y), kl(net)
        weight = self.kl_weight(step.epoch, step.step, step.steps, step.epochs)  # type: ignore[operator]
        loss = variational_loss(nll, divergence, step.num_train, weight)
        if self.loss_form == "total":
            loss = step.num_train * loss
        return Terms(loss, nll, divergence, weight, outputs)

    def is_settled(self, epoch: int, epochs: int) -> bool:
        return self.kl_weight.settled(epoch, epochs)  # type: ignore[union-attr]


def _default(optimizer: Optimizer, name: str) -> Any:
    """The value that an optimiser's class gives an argument by itself."""
    parameter = inspect.signature(type(optimizer)).parameters.get(name)
    return None if parameter is None else parameter.default
