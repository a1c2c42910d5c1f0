"""Priors over weights."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bnn_lightning.core.kernels.noise import standard_normal_like


def gaussian_kl(
    mu: Tensor, sigma: Tensor, prior_mu: Tensor, prior_sigma: Tensor, log_sigma: Tensor | None = None
) -> Tensor:
    """KL(N(mu, sigma^2) || N(prior_mu, prior_sigma^2)), element by element, in nats.

    log(s / sigma) + (sigma^2 + (mu - m)^2) / (2 s^2) - 1/2 for a prior N(m, s^2). The posterior comes first: the other
    direction is mass-covering, explodes as sigma goes to 0 and is not the term of the ELBO.

    ``log_sigma`` may be given where it is known more exactly than the logarithm of ``sigma``.
    """
    if log_sigma is None:
        log_sigma = sigma.log()
    return (
        prior_sigma.log() - log_sigma + (sigma.square() + (mu - prior_mu).square()) / (2 * prior_sigma.square()) - 0.5
    )


@dataclass(frozen=True)
class Prior(ABC):
    """A prior over each weight of a tensor, for posteriors N(mu, sigma^2)."""

    @abstractmethod
    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        """KL(N(mu, sigma^2) || prior) summed over a tensor, in nats; exact, or an unbiased estimate."""


@dataclass(frozen=True)
class ScaleMixture(Prior):
    """p(w) = pi N(0, sigma1^2) + (1 - pi) N(0, sigma2^2): a spike and a slab.

    Blundell et al. 2015 (arXiv:1505.05424), eq. 7. The KL is an estimate from one draw: the entropy of the posterior in
    closed form, and log p at the draw.

    Args:
        pi: weight of the wide component, between 0 and 1.
        sigma1: standard deviation of the wide component.
        sigma2: standard deviation of the narrow component; exp(-6) = 0.0025 is one of the published choices.
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
        """The logarithm of p(w), element by element."""
        parts = [
            math.log(share) - 0.5 * (w / sigma).square() - math.log(sigma * math.sqrt(2 * math.pi))
            for share, sigma in ((self.pi, self.sigma1), (1 - self.pi, self.sigma2))
        ]
        return torch.logaddexp(*parts)

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        entropy = log_sigma + 0.5 * math.log(2 * math.pi * math.e)
        return -(entropy + self.log_prob(torch.addcmul(mu, sigma, standard_normal_like(mu)))).sum()


@dataclass(frozen=True)
class LearntScale(Prior):
    """Empirical Bayes: p(w) = N(prior_mu, s^2) with one s for each tensor, always at its optimum.

    The s that minimises the KL is s^2 = mean(sigma^2 + (mu - prior_mu)^2), so it needs no parameter of its own, and the
    KL is sum(log s - log sigma).

    Args:
        prior_mu: mean of the prior.
    """

    prior_mu: float = 0.0

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        second_moment = (sigma.square() + (mu - self.prior_mu).square()).mean()
        return 0.5 * mu.numel() * second_moment.log() - log_sigma.sum()
