"""IVON: variational inference by natural gradients."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.settings import check_positive, check_share
from bnn_lightning.core.whole_network import kl
from bnn_lightning.inference.base import Inference, Step, Terms, TrainingFacts, sampled_outputs
from bnn_lightning.inference.learning_rates import LinearDecay, LRSchedule
from bnn_lightning.inference.natural_gradient import IVONOptimizer, check_posteriors
from bnn_lightning.likelihoods.base import Likelihood


@dataclass(frozen=True)
class IVON(Inference):
    """Maximises the ELBO by natural gradients, for the Gaussian posteriors of BBB, Flipout and LRT.

    The steps are those of :class:`~bnn_lightning.IVONOptimizer` (Shen et al. 2024, arXiv:2402.17641). The objective is
    that of Variational with kl_weight = temperature. h0 says where sigma begins, not the method's rho_init or
    moped_delta. Begin from ``mu_init: he``: from torch's own initial weights, which are smaller, some runs fall behind.

    Args:
        lr: the learning rate of the means.
        beta1: of the momentum.
        beta2: of the precision; null is 1 - 2 / steps of the run.
        h0: the initial curvature; null begins at 1/20 of the prior's sigma, or less in wide layers.
        clip: bound on each element of the preconditioned gradient, before lr.
        temperature: 1 is the ELBO; less gives a cold posterior.
        warmup: the fraction of the run's steps over which the rates rise from 0.
        lr_schedule: LinearDecay, Cosine or Plateau; null keeps the rate constant, and the means never settle.
        plain_lr: the learning rate of parameters that are not random, for which the step is that of Adam.
        samples: noise samples in each training step.
    """

    fixed_in_a_run = ("lr", "beta1", "beta2", "h0", "clip", "temperature", "warmup", "plain_lr")

    lr: float = 0.1
    beta1: float = 0.9
    beta2: float | None = None
    h0: float | None = None
    clip: float = 0.02
    temperature: float = 1.0
    warmup: float = 0.05
    lr_schedule: LRSchedule | None = LinearDecay()  # noqa: RUF009
    plain_lr: float = 0.001
    samples: int = 1

    def __post_init__(self) -> None:
        for name in ("lr", "clip", "temperature", "plain_lr", "h0"):
            check_positive(name, getattr(self, name))
        for name in ("beta1", "beta2", "warmup"):
            check_share(name, getattr(self, name))
        if self.samples < 1:
            raise ValueError(f"samples must be 1 or more, got {self.samples}.")

    def prepare(self, net: nn.Module, method: Method | None, only: str | list[str]) -> nn.Module:
        if method is None:
            raise ValueError("method must be BBB, Flipout or LRT for IVON, which learns their posteriors, got null.")
        net = super().prepare(net, method, only)
        check_posteriors(net)
        return net

    def make_optimizer(self, net: nn.Module, facts: TrainingFacts) -> Optimizer:
        if facts.clips_gradients:
            raise ValueError(
                "trainer.gradient_clip_val must be null for IVON, which learns sigma from the gradients: with "
                "clipped ones it comes out too wide. IVON's own clip bounds the step of mu."
            )
        settings = {name: getattr(self, name) for name in self.fixed_in_a_run}
        return IVONOptimizer(net, facts.num_train, None, **settings)

    def start(self, optimizer: Optimizer, steps: int) -> None:
        optimizer.param_groups[0]["steps"] = optimizer.param_groups[0]["steps"] or steps

    def make_scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any] | None:
        return None if self.lr_schedule is None else self.lr_schedule.scheduler(optimizer, epochs)

    @property
    def watches_validation(self) -> bool:
        scheduler = self.make_scheduler(torch.optim.SGD([nn.Parameter(torch.zeros(1))]), epochs=1)
        return scheduler is not None and "monitor" in scheduler

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, likelihood: Likelihood, step: Step) -> Terms:
        outputs = sampled_outputs(net, x, self.samples)
        nll = likelihood.nll(outputs, y)
        with torch.no_grad():  # the KL is in the step, and here for the logs
            divergence = kl(net)
        return Terms(nll, nll, divergence, self.temperature, outputs)
