"""Weights with multiplicative noise of mean 1 and variance alpha, which is fixed or learnt."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.bounded import bounded
from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.posteriors.base import Posterior, shape_text
from bnn_lightning.core.posteriors.divergences import Divergence

Parametrisation = Literal["log_alpha", "log_sigma2", "log_sigma"]
_LOG_ALPHA_BOUNDS = (-8.0, 8.0)  # of learnt alphas: the std of the noise is 2 % of the mean to 54 times the mean


class FixedAlpha(nn.Module):
    """The variance alpha of multiplicative noise as a constant, which is a buffer; calling it gives the value."""

    value: Tensor

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value)

    def forward(self) -> Tensor:
        return self.value

    def log(self) -> Tensor:
        """Log alpha; -inf where alpha is 0."""
        return self.value.log()

    def kl(self) -> Tensor:
        """Zero: a constant has no KL."""
        return self.value.new_zeros((), dtype=at_least_float32(self.value))


class LearntAlpha(nn.Module):
    """The variance alpha of multiplicative noise as a parameter; calling it gives the value.

    The noise has mean 1, so its variance sigma^2 is alpha: log_alpha and log_sigma2 are the same parameter under two
    names, and log_sigma is half of it. Log alpha is bounded to [-8, 8] and by what the divergence is valid for, with
    the gradient of :func:`~bnn_lightning.bounded`.

    Args:
        log_alpha: initial values.
        parametrisation: the parameter that is learnt; it is named so.
        divergence: the KL as a function of alpha.
    """

    def __init__(self, log_alpha: Tensor, parametrisation: Parametrisation, divergence: Divergence):
        super().__init__()
        self.parametrisation, self.divergence = parametrisation, divergence
        self.factor = 2.0 if parametrisation == "log_sigma" else 1.0
        self.register_parameter(parametrisation, nn.Parameter(log_alpha / self.factor))

    def log(self) -> Tensor:
        """Log alpha, within its bounds."""
        value = getattr(self, self.parametrisation) * self.factor
        low, high = _LOG_ALPHA_BOUNDS
        return bounded(value, low, min(high, self.divergence.valid_to))

    def forward(self) -> Tensor:
        return self.log().exp()

    def kl(self) -> Tensor:
        """The divergence in nats, summed over the alphas, each counted once."""
        log_alpha = self.log()
        return self.divergence.function(log_alpha.to(at_least_float32(log_alpha)).neg().exp()).sum()


def identity(values: Tensor) -> Tensor:
    """``values`` unchanged: for alphas whose shape already broadcasts to the weights."""
    return values


class Multiplicative(Posterior):
    """w = mu * z with noise z of mean 1 and variance alpha.

    Args:
        mu: initial means.
        alpha: the variances of z.
        over_weights: reshapes alpha so that it broadcasts to the weights; the identity if it already does.
        shared: whether the weights with the same alpha share one z, whose KL counts once. Otherwise each weight has a z
            of its own, and the KL of an alpha counts once for each of its weights.
        bernoulli: whether z is 0 or 1 + alpha, dropout that keeps with probability 1 / (1 + alpha); otherwise z is
            Gaussian.
    """

    def __init__(
        self,
        mu: Tensor,
        alpha: FixedAlpha | LearntAlpha,
        over_weights: Callable[[Tensor], Tensor] = identity,
        shared: bool = False,
        bernoulli: bool = False,
    ):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self.alpha = alpha
        self.over_weights, self.shared, self.bernoulli = over_weights, shared, bernoulli
        self.is_factorised = self.is_symmetric = not shared
        self.kl_count = 1 if shared else mu.numel() / alpha().numel()
        """How often the KL of each alpha counts."""

    @property
    def width_parameters(self) -> tuple[str, ...]:
        return (f"alpha.{self.alpha.parametrisation}",) if isinstance(self.alpha, LearntAlpha) else ()

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return self.over_weights(self.alpha()) * self.mu.square()

    def noise(self, alpha: Tensor) -> Tensor:
        """Independent draws of z with the variances ``alpha``, in its shape: that of the tensor that z multiplies."""
        if self.bernoulli:
            return (torch.rand_like(alpha) * (1 + alpha) < 1) * (1 + alpha)
        return torch.addcmul(torch.ones_like(alpha), alpha.sqrt(), standard_normal_like(alpha))

    def sample(self) -> Tensor:
        if self.shared:
            return self.mu * self.over_weights(self.noise(self.alpha()))
        return self.mu * self.noise(self.over_weights(self.alpha()).expand_as(self.mu))

    def log_alpha(self) -> Tensor:
        return self.over_weights(self.alpha.log()).expand_as(self.mu)

    def kl(self) -> Tensor:
        return self.alpha.kl() * self.kl_count

    def extra_repr(self) -> str:
        return f"{shape_text(self.mu)}, {'shared' if self.shared else 'independent'} noise"
