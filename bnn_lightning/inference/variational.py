"""Variational inference: maximises the ELBO by stochastic gradients, with any optimiser of torch."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnn_lightning.core.objective import variational_loss
from bnn_lightning.core.settings import check_positive, check_words
from bnn_lightning.core.whole_network import kl, objective_of, width_parameters
from bnn_lightning.inference.base import Step, Terms, TrainingFacts, sampled_outputs
from bnn_lightning.inference.gradient_descent import GradientDescent, default_argument, divides_by_gradients
from bnn_lightning.inference.kl_weights import KLWeight, kl_weight
from bnn_lightning.likelihoods.base import Likelihood


@dataclass(frozen=True)
class Variational(GradientDescent):
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
            form is the other one, so that both forms take the same steps. Another one is not changed.
            total cannot be used with 16-mixed.
        samples: noise samples in each training step.
    """

    fixed_in_a_run: ClassVar[tuple[str, ...]] = ("lr", "optimizer", "rho_lr_factor")

    rho_lr_factor: float = 1.0
    kl_weight: float | KLWeight = 1.0
    loss_form: Literal["per_datum", "total"] = "per_datum"
    samples: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_words(self)
        check_positive("rho_lr_factor", self.rho_lr_factor)
        if self.samples < 1:
            raise ValueError(f"samples must be 1 or more, got {self.samples}.")
        object.__setattr__(self, "kl_weight", kl_weight(self.kl_weight))
        optimizer = self.optimizer([nn.Parameter(torch.zeros(1))])
        if self.loss_form == "total" and not divides_by_gradients(optimizer):
            raise ValueError(
                f"loss_form must be per_datum with {type(optimizer).__name__}, whose steps are as long as gradients, "
                "got total."
            )

    def make_optimizer(self, net: nn.Module, facts: TrainingFacts) -> Optimizer:
        widths = width_parameters(net)
        width_ids = {id(parameter) for parameter in widths}
        means = [parameter for parameter in net.parameters() if id(parameter) not in width_ids]
        optimizer = self.optimizer_of([means, widths] if widths else [means], facts)
        for group in optimizer.param_groups:
            if divides_by_gradients(optimizer) and group["eps"] == default_argument(optimizer, "eps"):
                group["eps"] = self._scaled_eps(group["eps"], objective_of(net) != "likelihood", facts.num_train)
        for group in optimizer.param_groups[1:]:
            group["lr"] *= self.rho_lr_factor
            if "weight_decay" in group:
                group["weight_decay"] = 0.0
        return optimizer

    def _scaled_eps(self, eps: float, has_kl: bool, num_train: int) -> float:
        """Epsilon scaled like the gradients: ``eps`` is for those of N * nll + KL, or of nll where there is no KL."""
        if has_kl:
            return eps / num_train if self.loss_form == "per_datum" else eps
        return eps * num_train if self.loss_form == "total" else eps

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, likelihood: Likelihood, step: Step) -> Terms:
        outputs = sampled_outputs(net, x, self.samples)
        return self.terms(net, outputs, likelihood.nll(outputs, y), step)

    def terms(self, net: nn.Module, outputs: Tensor, nll: Tensor, step: Step) -> Terms:
        """The terms of a step whose outputs and nll are known: with the KL of ``net``, its weight, and the loss."""
        divergence = kl(net)
        weight = self.kl_weight(step.epoch, step.step, step.steps, step.epochs)  # type: ignore[operator]
        loss = variational_loss(nll, divergence, step.num_train, weight)
        if self.loss_form == "total":
            loss = step.num_train * loss
        return Terms(loss, nll, divergence, weight, outputs)

    def is_settled(self, epoch: int, epochs: int) -> bool:
        return super().is_settled(epoch, epochs) and self.kl_weight.settled(epoch, epochs)  # type: ignore[union-attr]
