"""Weights with additive Gaussian noise and a KL that depends on alpha = variance / mean^2 alone."""

import math

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.bounded import bounded
from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.posteriors.base import Posterior, shape_text
from bnn_lightning.core.posteriors.divergences import Divergence
from bnn_lightning.core.posteriors.multiplicative import Parametrisation

_MAX_LOG_PRECISION = 40.0  # of log(1 / sigma) in the KL: exp() of more would overflow
_MIN_LOG_SIGMA2 = -40.0  # of the upper bound on log sigma^2, which for a mean of 0 would be -inf


class Additive(Posterior):
    """w = mu + sigma * eps with eps ~ N(0, 1), and a KL that depends on alpha = sigma^2 / mu^2 alone, for each weight.

    The distribution is that of multiplicative noise, but the gradient in mu has less variance: dw/dmu is 1 here and
    1 + sqrt(alpha) eps there. Molchanov et al. 2017 (arXiv:1701.05369), section 4.2.

    Args:
        mu: initial means.
        log_sigma2: initial log sigma^2, of the same shape.
        parametrisation: the parameter that is learnt, log_sigma2 or log_sigma; it is named so.
        divergence: the KL as a function of alpha. If it is valid up to a largest alpha, sigma^2 is bounded accordingly.
        prune_above: where log alpha is above this, the mean counts as 0, so that only the KL moves mu.
    """

    def __init__(
        self,
        mu: Tensor,
        log_sigma2: Tensor,
        parametrisation: Parametrisation,
        divergence: Divergence,
        prune_above: float = math.inf,
    ):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self.prune_above = prune_above
        self.parametrisation, self.divergence = parametrisation, divergence
        self.factor = 2.0 if parametrisation == "log_sigma" else 1.0
        self.register_parameter(parametrisation, nn.Parameter(log_sigma2 / self.factor))

    @property
    def width_parameters(self) -> tuple[str, ...]:
        return (self.parametrisation,)

    def _log_sigma2(self) -> Tensor:
        """Log sigma^2 of each weight, within its upper bound."""
        value = getattr(self, self.parametrisation) * self.factor
        return value if math.isinf(self.divergence.valid_to) else bounded(value, -math.inf, self._max_log_sigma2())

    def _max_log_sigma2(self) -> Tensor:
        """The log sigma^2 of each weight at which alpha is the largest that the divergence is valid for."""
        return (2 * self.mu.detach().abs().log() + self.divergence.valid_to).clamp_min(_MIN_LOG_SIGMA2)

    @property
    def mean(self) -> Tensor:
        if math.isinf(self.prune_above):
            return self.mu
        mean_square, variance = self.mu.detach().square(), self._log_sigma2().detach().exp()
        return self.mu * (variance < math.exp(self.prune_above) * mean_square)

    @property
    def variance(self) -> Tensor:
        return self._log_sigma2().exp()

    def sample(self) -> Tensor:
        return torch.addcmul(self.mean, (0.5 * self._log_sigma2()).exp(), standard_normal_like(self.mu))

    def log_alpha(self) -> Tensor:
        dtype = at_least_float32(self.mu)
        return self._log_sigma2().to(dtype) - 2 * self.mu.to(dtype).abs().log()

    def kl(self) -> Tensor:
        dtype = at_least_float32(self.mu)
        log_sigma2 = self._log_sigma2().to(dtype)
        log_precision = -0.5 * log_sigma2
        # The bound changes the value alone, not the gradient: a smaller sigma still feels the KL.
        log_precision = log_precision + (log_precision.clamp_max(_MAX_LOG_PRECISION) - log_precision).detach()
        # 1/alpha as (mu / sigma)^2 and not as exp(-log alpha): the logarithm of mu^2 has no gradient at mu = 0.
        precision = (self.mu.to(dtype) * log_precision.exp()).square()
        if math.isfinite(self.divergence.valid_to):
            # Where sigma^2 is at its bound, alpha is constant in mu, because the bound moves with mu: no gradient.
            min_precision = math.exp(-self.divergence.valid_to)
            precision = precision.clamp_min(min_precision).masked_fill(
                log_sigma2 >= self._max_log_sigma2(), min_precision
            )
        return self.divergence.function(precision).sum()

    def extra_repr(self) -> str:
        return f"{shape_text(self.mu)}, {self.parametrisation}"
