"""Weights with additive Gaussian noise whose KL depends on alpha = variance / mean^2 only."""

import math

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.bounded import bounded
from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.posteriors.base import Posterior, shape_text
from bnn_lightning.core.posteriors.divergences import Divergence
from bnn_lightning.core.posteriors.multiplicative import Parametrisation

_MAX_LOG_PRECISION = 40.0  # log(1 / sigma) in the KL of additive noise
_MIN_LOG_SIGMA2 = -40.0  # where the limit on alpha would ask for no noise at all, at a mean of 0


class Additive(Posterior):
    """w = mu + sigma * eps with a KL that depends on alpha = sigma^2 / mu^2 only, one for each weight.

    The same family as multiplicative noise, but the gradient in mu carries no noise: dw/dmu is 1 here and
    1 + sqrt(alpha) eps there. Molchanov et al. 2017 (arXiv:1701.05369), section 4.2.

    Args:
        mu: initial means.
        log_sigma2: initial log variances, of the same shape.
        parametrisation: log_sigma2 or log_sigma; it names the parameter.
        divergence: the KL, a function of alpha.
        prune_above: the mean is taken as 0 where log alpha is above this, so that nothing but the KL moves mu there.
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
        value = getattr(self, self.parametrisation) * self.factor
        return value if math.isinf(self.divergence.valid_to) else bounded(value, -math.inf, self._limit())

    def _limit(self) -> Tensor:
        """The log sigma^2 at which alpha is as large as the divergence holds for."""
        return (2 * self.mu.detach().abs().log() + self.divergence.valid_to).clamp_min(_MIN_LOG_SIGMA2)

    @property
    def mean(self) -> Tensor:
        if math.isinf(self.prune_above):
            return self.mu
        signal, noise = self.mu.detach().square(), self._log_sigma2().detach().exp()
        return self.mu * (noise < math.exp(self.prune_above) * signal)

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
        # By value only, so that a sigma that small still feels the KL: exp() would overflow.
        log_precision = log_precision + (log_precision.clamp_max(_MAX_LOG_PRECISION) - log_precision).detach()
        # (mu / sigma)^2 rather than log alpha, whose logarithm of mu^2 has no gradient at mu = 0.
        precision = (self.mu.to(dtype) * log_precision.exp()).square()
        if math.isfinite(self.divergence.valid_to):
            # At the limit alpha stays what it is when mu moves, for the limit moves with it.
            least = math.exp(-self.divergence.valid_to)
            precision = precision.clamp_min(least).masked_fill(log_sigma2 >= self._limit(), least)
        return self.divergence.function(precision).sum()

    def extra_repr(self) -> str:
        return f"{shape_text(self.mu)}, {self.parametrisation}"
