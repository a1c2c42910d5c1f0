"""Priors over weights: normal, with a scale by fan-in or learnt, scale mixture, Laplace, Student's t."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from bnn_lightning.core.kernels.gaussian_kl import gaussian_kl
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.kernels.quadrature import mean_log1p_square
from bnn_lightning.core.ops.base import Op, fan_in
from bnn_lightning.core.settings import check_finite, check_positive


@dataclass(frozen=True)
class Prior(ABC):
    """A prior over the weights of a tensor.

    Write a prior as a frozen dataclass of its settings with :meth:`log_prob`. Fields that hold tensors become buffers
    of the posterior, so that they move with it to another device and into the checkpoint.
    """

    has_closed_kl: ClassVar[bool] = False
    """Whether :meth:`kl` is computed without a draw. Local reparameterisation, which draws no weights, refuses other
    priors."""

    needs_only_moments: ClassVar[bool] = False
    """Whether E[log p(w)] follows from means and variances alone, whatever the law of w, as for a normal density.
    Posteriors that are not Gaussian then have an exact KL too."""

    def for_tensor(self, init: Tensor, op: Op | None = None) -> "Prior":
        """The prior of one tensor of a network: by default this prior; it may depend on values, shape or fan-in.

        Args:
            init: the tensor's values before training.
            op: the layer's arithmetic; None for a bias. ``init.numel() // op.out_features`` is the fan-in of a weight,
                the number of weights that are added up in one output; of an Embedding one is.
        """
        return self

    def shifted(self, center: float) -> "Prior":
        """The prior with its mean moved by ``center``; the same, where it has none that can be set.

        The scales of norm layers, which multiply, have a prior around 1: around 0 it would ask for no signal at all.
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
        return -(_gaussian_entropy(log_sigma) + self.log_prob(torch.addcmul(mu, sigma, standard_normal_like(mu)))).sum()


@dataclass(frozen=True)
class Normal(Prior):
    """p(w) = N(mu, sigma^2).

    Args:
        mu: the mean.
        sigma: the standard deviation (not the variance).
    """

    has_closed_kl = True
    needs_only_moments = True

    mu: float = 0.0  # a tensor, where a posterior has made it its own; flags are numbers
    sigma: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.sigma, Tensor):
            check_positive("sigma", self.sigma, "standard deviation such as 0.1")
        if not isinstance(self.mu, Tensor):
            check_finite("mu", self.mu)

    def shifted(self, center: float) -> "Normal":
        return replace(self, mu=self.mu + center)

    def log_prob(self, w: Tensor) -> Tensor:
        sigma = torch.as_tensor(self.sigma, dtype=w.dtype, device=w.device)
        return -0.5 * ((w - self.mu) / sigma).square() - sigma.log() - 0.5 * math.log(2 * math.pi)

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        prior_mu, prior_sigma = (torch.as_tensor(x, dtype=mu.dtype, device=mu.device) for x in (self.mu, self.sigma))
        return gaussian_kl(mu, sigma, prior_mu, prior_sigma, log_sigma).sum()


@dataclass(frozen=True)
class FanIn(Prior):
    """N(0, scale^2 / fan-in) for the weights of each layer, N(0, scale^2) for biases.

    Under this prior the outputs of a layer are about as large in wide layers as in narrow ones (Neal 1996, "Bayesian
    learning for neural networks", section 2.1). Each tensor has a :class:`Normal` prior. The fan-in of an Embedding is
    1: of all words one gives the output.

    Args:
        scale: standard deviation where one weight is added up.
    """

    has_closed_kl = True
    needs_only_moments = True

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive("scale", self.scale, "standard deviation such as 1")

    def for_tensor(self, init: Tensor, op: Op | None = None) -> Normal:
        return Normal(0.0, self.scale / math.sqrt(1 if op is None else fan_in(init, op)))

    def log_prob(self, w: Tensor) -> Tensor:
        """Log p(w) of biases; that of weights is known to the prior that :meth:`Prior.for_tensor` gives."""
        return self.for_tensor(w).log_prob(w)

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        """The KL of biases; that of weights is known to the prior that :meth:`Prior.for_tensor` gives."""
        return self.for_tensor(mu).kl(mu, sigma, log_sigma)


@dataclass(frozen=True)
class LaplacePrior(Prior):
    """p(w) = exp(-|w| / scale) / (2 scale): most weights near 0, a few far away.

    Args:
        scale: mean of |w|; the standard deviation is sqrt(2) times as large.
    """

    has_closed_kl = True

    scale: float = 0.1

    def __post_init__(self) -> None:
        check_positive("scale", self.scale, "mean of |w| such as 0.1")

    def log_prob(self, w: Tensor) -> Tensor:
        return -w.abs() / self.scale - math.log(2 * self.scale)

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        """The KL in closed form, by E|w| = sqrt(2 / pi) sigma exp(-t^2) + mu erf(t) with t = mu / (sqrt(2) sigma)."""
        # From |t| = 14 on, erf(t) is 1 and exp(-t^2) is 0 in every precision, and further out t would overflow.
        divisor = torch.maximum(sigma, 0.05 * mu.detach().abs()).clamp_min(torch.finfo(sigma.dtype).tiny)
        t = mu / (math.sqrt(2) * divisor)
        mean_of_absolute = math.sqrt(2 / math.pi) * sigma * (-t.square()).exp() + mu * torch.erf(t)
        return (mean_of_absolute / self.scale + math.log(2 * self.scale) - _gaussian_entropy(log_sigma)).sum()


@dataclass(frozen=True)
class StudentTPrior(Prior):
    """Student's t: p(w) is proportional to (1 + w^2 / (df scale^2))^(-(df + 1) / 2), with tails of a power law.

    The KL is computed by Gauss-Hermite quadrature. Measured against numerical integration, its error is below 2e-5 nats
    a weight where sigma is up to ``scale``, and below 3e-3 up to twice that, at df = 1; it falls with df (2e-8 and 1e-4
    at df = 3).

    Args:
        df: degrees of freedom; 1 is a Cauchy density, and from about 30 on it is nearly normal.
        scale: the width; the standard deviation is scale * sqrt(df / (df - 2)), if df is above 2.
    """

    has_closed_kl = True

    df: float = 3.0
    scale: float = 0.1

    def __post_init__(self) -> None:
        check_positive("df", self.df, "number of degrees of freedom such as 3")
        check_positive("scale", self.scale, "width such as 0.1")

    def log_prob(self, w: Tensor) -> Tensor:
        return self._log_norm() - 0.5 * (self.df + 1) * (w / self._width()).square().log1p()

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        mean_log = mean_log1p_square(mu / self._width(), sigma / self._width())
        return (0.5 * (self.df + 1) * mean_log - self._log_norm() - _gaussian_entropy(log_sigma)).sum()

    def _width(self) -> float:
        return self.scale * math.sqrt(self.df)

    def _log_norm(self) -> float:
        """Log p(0)."""
        log_beta = math.lgamma(0.5 * (self.df + 1)) - math.lgamma(0.5 * self.df) - 0.5 * math.log(math.pi)
        return log_beta - math.log(self._width())


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
            check_positive(name, getattr(self, name), "standard deviation")

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
    needs_only_moments = True

    prior_mu: float = 0.0

    def __post_init__(self) -> None:
        check_finite("prior_mu", self.prior_mu)

    def shifted(self, center: float) -> "LearntScale":
        return replace(self, prior_mu=self.prior_mu + center)

    def log_prob(self, w: Tensor) -> Tensor:
        """Log p(w) at the s that maximises it, s^2 = mean((w - prior_mu)^2)."""
        squares = (w - self.prior_mu).square()
        variance = squares.mean()
        return -0.5 * (squares / variance + variance.log() + math.log(2 * math.pi))

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        second_moment = (sigma.square() + (mu - self.prior_mu).square()).mean()
        return 0.5 * mu.numel() * second_moment.log() - log_sigma.sum()


def _gaussian_entropy(log_sigma: Tensor) -> Tensor:
    """The entropy of N(mu, sigma^2) of each element, in nats."""
    return log_sigma + 0.5 * math.log(2 * math.pi * math.e)
