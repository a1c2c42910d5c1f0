"""Weights under multiplicative noise, or told by alpha: their variance over their squared mean."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from bnn_lightning.noise import standard_normal_like
from bnn_lightning.posteriors.base import WithDerivative, at_least_float32, shape_text


class Divergence(NamedTuple):
    """A KL divergence that depends on alpha only."""

    function: Callable[[Tensor], Tensor]
    """Element by element in nats, of 1/alpha: finite, with its gradient, also at a mean of 0."""
    valid_to: float = math.inf
    """The largest log alpha that the function holds for."""


_C1, _C2, _C3 = 1.16145124, -1.50204118, 0.58629921
_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695


def kingma_kl(precision: Tensor) -> Tensor:
    """KL to the log-uniform prior up to a constant, for alpha <= 1: c - log(alpha)/2 - c1 a - c2 a^2 - c3 a^3, 0 at 1.

    Kingma et al. 2015 (arXiv:1506.02557), eq. 14, with ``precision`` = 1/alpha. A polynomial fitted to alpha <= 1: far
    above it is wrong without limit, so whoever uses it keeps alpha there.
    """
    alpha = 1 / precision
    return 0.5 * precision.log() + (_C1 + _C2 + _C3) - alpha * (_C1 + alpha * (_C2 + alpha * _C3))


def log_uniform_kl(precision: Tensor) -> Tensor:
    """KL to the log-uniform prior, 0 as alpha goes to infinity: k1 - k1 sigmoid(k2 + k3 log a) + log(1 + 1/a)/2.

    Molchanov et al. 2017 (arXiv:1701.05369), eq. 14, with ``precision`` = 1/alpha; within 0.01 nats of the exact value.
    The prior is improper: a sum with the likelihood's term is a regularised loss, not a bound on log p(data).
    """
    return _LogUniformKL.apply(precision)[0]


class _LogUniformKL(WithDerivative):
    """:func:`log_uniform_kl` with one saved tensor where autograd would keep nine."""

    @staticmethod
    def forward(precision: Tensor) -> tuple[Tensor, Tensor]:
        tiny = torch.finfo(precision.dtype).tiny  # where the quotient below would be 0 / 0
        within = precision.clamp(tiny, math.exp(40))  # beyond, the sigmoid is 0 and the power would overflow
        power = within.pow(_K3).mul_(math.exp(-_K2))
        sigmoid = (1 + power).reciprocal_()
        derivative = power.mul_(sigmoid).mul_(sigmoid).div_(within).mul_(_K1 * _K3)
        derivative.add_((1 + precision).reciprocal_(), alpha=0.5)
        return precision.log1p().mul_(0.5).add_(_K1).sub_(sigmoid, alpha=_K1), derivative


def hierarchical_kl(precision: Tensor) -> Tensor:
    """KL to N(0, gamma) with the best gamma for each weight, gamma = mu^2 + sigma^2: log(1 + 1/alpha) / 2.

    Liu et al. 2019 (arXiv:1811.07533); also Kharitonov et al. 2018, as empirical Bayes. ``precision`` = 1/alpha.
    """
    return 0.5 * precision.log1p()


class _Bounded(torch.autograd.Function):
    """clamp(x, low, high) whose gradient still passes where it leads back inside, so that nothing dies on a bound."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(x, low), high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, low, high = ctx.saved_tensors
        # A step goes against the gradient: at the upper bound a positive one leads inside, at the lower a negative one.
        outwards = ((x >= high) & (grad < 0)) | ((x <= low) & (grad > 0))
        return grad.masked_fill(outwards, 0), None, None


def bounded(x: Tensor, low: float, high: float | Tensor) -> Tensor:
    """``x`` within [low, high], with the gradient of projected descent: stopped only where it leads further out.

    A plain clamp has no gradient at its bounds, so a parameter that starts or arrives there never moves again.
    """
    # A number becomes a tensor on its device: one that is copied there would have the program wait for the device.
    bounds = (bound.to(x) if isinstance(bound, Tensor) else x.new_full((), bound) for bound in (low, high))
    return _Bounded.apply(x, *bounds)


KINGMA = Divergence(kingma_kl, valid_to=0.0)
LOG_UNIFORM = Divergence(log_uniform_kl)
HIERARCHICAL = Divergence(hierarchical_kl)

Parametrisation = Literal["log_alpha", "log_sigma2", "log_sigma"]

_LOG_ALPHA = (-8.0, 8.0)  # of multiplicative noise: from 2 % of the signal to 54 times
_MAX_LOG_PRECISION = 40.0  # log(1 / sigma) in the KL of additive noise
_MIN_LOG_SIGMA2 = -40.0  # where the limit on alpha would ask for no noise at all, at a mean of 0


class FixedAlpha(nn.Module):
    """The variance alpha of multiplicative noise, as a setting."""

    value: Tensor

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value)

    def forward(self) -> Tensor:
        return self.value

    def log(self) -> Tensor:
        return self.value.log()

    def kl(self) -> Tensor:
        return self.value.new_zeros((), dtype=at_least_float32(self.value))


class LearntAlpha(nn.Module):
    """The variance alpha of multiplicative noise as a parameter: its logarithm, or (log_sigma) half of that.

    The noise has mean 1, so that its variance is alpha: log_alpha and log_sigma2 are the same.

    Args:
        log_alpha: initial values, a number for each alpha.
        parametrisation: what is learnt; it names the parameter.
        divergence: the KL of each alpha.
    """

    def __init__(self, log_alpha: Tensor, parametrisation: Parametrisation, divergence: Divergence):
        super().__init__()
        self.parametrisation, self.divergence = parametrisation, divergence
        self.factor = 2.0 if parametrisation == "log_sigma" else 1.0
        self.register_parameter(parametrisation, nn.Parameter(log_alpha / self.factor))

    def log(self) -> Tensor:
        """Log alpha, within its bounds."""
        value = getattr(self, self.parametrisation) * self.factor
        low, high = _LOG_ALPHA
        return bounded(value, low, min(high, self.divergence.valid_to))

    def forward(self) -> Tensor:
        return self.log().exp()

    def kl(self) -> Tensor:
        log_alpha = self.log()
        return self.divergence.function(log_alpha.to(at_least_float32(log_alpha)).neg().exp()).sum()


def unchanged(values: Tensor) -> Tensor:
    """For alphas whose shape broadcasts to the weights as it is."""
    return values


class Multiplicative(nn.Module):
    """w = mu * z with noise z of mean 1 and variance alpha.

    Args:
        mu: the weights.
        alpha: the variances, a tensor with a number for each noise that has a variance of its own.
        over_weights: spreads a tensor of alpha's shape over the weights.
        shared: weights with one alpha have one z too; otherwise each weight has its own, and pays its own KL.
        bernoulli: z is 0 or 1 + alpha, dropout that keeps with probability 1 / (1 + alpha); otherwise z is Gaussian.
    """

    def __init__(
        self,
        mu: Tensor,
        alpha: FixedAlpha | LearntAlpha,
        over_weights: Callable[[Tensor], Tensor],
        shared: bool,
        bernoulli: bool = False,
    ):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self.alpha = alpha
        self.over_weights, self.shared, self.bernoulli = over_weights, shared, bernoulli
        self.kl_count = 1 if shared else mu.numel() / alpha().numel()

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return self.over_weights(self.alpha()) * self.mu.square()

    def noise(self, alpha: Tensor) -> Tensor:
        """Independent draws of z, one for each element of ``alpha``, which has been spread over what they multiply."""
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


class Additive(nn.Module):
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
