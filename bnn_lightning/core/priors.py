"""Priors over weights: normal, scale mixture, and normal with a learnt scale."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bnn_lightning.core.kernels.gaussian_kl import gaussian_kl
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.ops.base import Op


@dataclass(frozen=True)
class Prior(ABC):
    """A prior over the weights of a tensor.

    Write a prior as a frozen dataclass of its settings with :meth:`log_prob`. Fields that hold tensors become buffers
    of the posterior, so that they move with it to another device and into the checkpoint.
    """

    has_closed_kl: ClassVar[bool] = False
    """Whether :meth:`kl` is exact. Local reparameterisation, which draws no weights, refuses other priors."""

    def for_tensor(self, init: Tensor, op: Op | None = None) -> "Prior":
        """The prior of one tensor of a network: by default this prior; it may depend on values, shape or fan-in.

        Args:
            init: the tensor's values before training; ``init[0].numel()`` is the fan-in of a weight.
            op: the layer's arithmetic; None for a bias.
        """
        return self

    @abstractmethod
    def log_prob(self, w: Tensor) -> Tensor:
        """Log p(w) of each element, in nats, in the shape of ``w``."""

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        """KL(N(mu, sigma^2) || prior) in nats, summed over a tensor: exact, or an unbiased estimate.

        By default an estimate from one draw w: -(entropy of the posterior + log p(w)), the entropy in closed form.

        Args:
            mu: means of the posterior.
            sigma: its standard deviations, of the same shape.
            log_sigma: log(sigma), finite also where sigma underflows.
        """
        entropy = log_sigma + 0.5 * math.log(2 * math.pi * math.e)
        return -(entropy + self.log_prob(torch.addcmul(mu, sigma, standard_normal_like(mu)))).sum()


@dataclass(frozen=True)
class Normal(Prior):
    """p(w) = N(mu, sigma^2).

    Args:
        mu: the mean.
        sigma: the standard deviation (not the variance).
    """

    has_closed_kl = True

    mu: float = 0.0  # a tensor, where a posterior has made it its own; flags are numbers
    sigma: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.sigma, Tensor) and not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma must be a positive standard deviation such as 0.1, got {self.sigma}.")
        if not isinstance(self.mu, Tensor) and not math.isfinite(self.mu):
            raise ValueError(f"mu must be a finite number such as 0, got {self.mu}.")

    def log_prob(self, w: Tensor) -> Tensor:
        sigma = torch.as_tensor(self.sigma, dtype=w.dtype, device=w.device)
        return -0.5 * ((w - self.mu) / sigma).square() - sigma.log() - 0.5 * math.log(2 * math.pi)

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        prior_mu, prior_sigma = (torch.as_tensor(x, dtype=mu.dtype, device=mu.device) for x in (self.mu, self.sigma))
        return gaussian_kl(mu, sigma, prior_mu, prior_sigma, log_sigma).sum()


@dataclass(frozen=True)
class ScaleMixture(Prior):
    """The spike-and-slab prior p(w) = pi N(0, sigma1^2) + (1 - pi) N(0, sigma2^2).

    Blundell et al. 2015 (arXiv:1505.05424), eq. 7. The KL is estimated from one draw.

    Args:
        pi: weight of the wide component (the slab), between 0 and 1.
        sigma1: standard deviation of the wide component.
        sigma2: standard deviation of the narrow component (the spike); exp(-6) = 0.0025 is one of the published
            choices.
    """

    pi: float = 0.5
    sigma1: float = 1.0
    sigma2: float = math.exp(-6)

    def __post_init__(self) -> None:
        if not 0 < self.pi < 1:
            raise ValueError(f"pi must be between 0 and 1, got {self.pi}.")
        for name in ("sigma1", "sigma2"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive standard deviation, got {value}.")

    def log_prob(self, w: Tensor) -> Tensor:
        components = [
            math.log(share) - 0.5 * (w / sigma).square() - math.log(sigma * math.sqrt(2 * math.pi))
            for share, sigma in ((self.pi, self.sigma1), (1 - self.pi, self.sigma2))
        ]
        return torch.logaddexp(*components)


@dataclass(frozen=True)
class LearntScale(Prior):
    """Empirical Bayes: p(w) = N(prior_mu, s^2) with the optimal s for each tensor.

    The s that minimises the KL has the closed form s^2 = mean(sigma^2 + (mu - prior_mu)^2), so it is no parameter; the
    KL at this s is sum(log s - log sigma).

    Args:
        prior_mu: mean of the prior.
    """

    has_closed_kl = True

    prior_mu: float = 0.0

    def log_prob(self, w: Tensor) -> Tensor:
        """Log p(w) at the s that maximises it, s^2 = mean((w - prior_mu)^2)."""
        squares = (w - self.prior_mu).square()
        variance = squares.mean()
        return -0.5 * (squares / variance + variance.log() + math.log(2 * math.pi))

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        second_moment = (sigma.square() + (mu - self.prior_mu).square()).mean()
        return 0.5 * mu.numel() * second_moment.log() - log_sigma.sum()
