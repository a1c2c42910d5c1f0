"""Random tensors: what a weight or a bias becomes under a method, their priors, and the KL divergences between them.

Every posterior is an ``nn.Module`` with the same four members: ``mean``, ``variance``, ``sample()`` and ``kl()``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Below this rho, softplus(rho) equals exp(rho) to float32 rounding, so log(softplus(rho)) is rho itself. Going through
# the logarithm would end at log(0) = -inf once softplus underflows (rho < -104 in float32).
_LOG_SIGMA_IS_RHO = -15.0


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


class Posterior(Protocol):
    """A random tensor. ``mean``, ``variance`` and ``sample()`` have the shape of the tensor it replaces."""

    @property
    def mean(self) -> Tensor: ...

    @property
    def variance(self) -> Tensor: ...

    def sample(self) -> Tensor:
        """One draw, differentiable in the posterior's parameters."""
        ...

    def kl(self) -> Tensor:
        """KL(posterior || prior) summed over the tensor: a scalar in nats, computed from the current parameters."""
        ...


class Point(nn.Module):
    """A tensor that is not random: all mass at mu, no KL."""

    def __init__(self, mu: Tensor):
        super().__init__()
        self.mu = nn.Parameter(mu)

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.mu)

    def sample(self) -> Tensor:
        return self.mu

    def kl(self) -> Tensor:
        return torch.zeros((), dtype=_at_least_float32(self.mu), device=self.mu.device)

    def extra_repr(self) -> str:
        return _shape(self.mu)


# Priors of Gaussian posteriors other than N(prior_mu, prior_sigma^2)


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
        return -(entropy + self.log_prob(torch.addcmul(mu, sigma, torch.randn_like(mu)))).sum()


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


class Gaussian(nn.Module):
    """q(w) = N(mu, sigma^2) for each element on its own, sigma = softplus(rho), with prior N(prior_mu, prior_sigma^2).

    Blundell et al. 2015 (arXiv:1505.05424), section 3.2. ``mu`` and ``rho`` are parameters, the prior is a buffer.

    Args:
        mu: initial means.
        rho: initial rho, of the same shape; sigma(-3) = 0.0486, sigma(-5) = 0.00672.
        prior_mu, prior_sigma: mean and standard deviation of the prior: one number, or a tensor that broadcasts.
        prior: another prior in its place.
    """

    prior_mu: Tensor
    prior_sigma: Tensor

    def __init__(
        self,
        mu: Tensor,
        rho: Tensor,
        prior_mu: float | Tensor = 0.0,
        prior_sigma: float | Tensor = 0.1,
        prior: Prior | None = None,
    ):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self.rho = nn.Parameter(rho)
        self.prior = prior
        self.register_buffer("prior_mu", torch.as_tensor(prior_mu, dtype=mu.dtype, device=mu.device))
        self.register_buffer("prior_sigma", torch.as_tensor(prior_sigma, dtype=mu.dtype, device=mu.device))

    @property
    def sigma(self) -> Tensor:
        return F.softplus(self.rho)

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return self.sigma.square()

    def sample(self) -> Tensor:
        return torch.addcmul(self.mu, self.sigma, torch.randn_like(self.mu))

    def kl(self) -> Tensor:
        dtype = _at_least_float32(self.mu)
        mu, rho = self.mu.to(dtype), self.rho.to(dtype)
        prior_mu, prior_sigma = self.prior_mu.to(dtype), self.prior_sigma.to(dtype)
        sigma = F.softplus(rho)
        log_sigma = torch.where(rho < _LOG_SIGMA_IS_RHO, rho, sigma.clamp_min(torch.finfo(dtype).tiny).log())
        if self.prior is not None:
            return self.prior.kl(mu, sigma, log_sigma)
        return gaussian_kl(mu, sigma, prior_mu, prior_sigma, log_sigma).sum()

    def extra_repr(self) -> str:
        if self.prior is not None:
            return f"{_shape(self.mu)}, {self.prior}"
        one = self.prior_sigma.numel() == 1
        prior = f"prior_sigma={self.prior_sigma.item():.4g}" if one else "a prior for each element"
        return f"{_shape(self.mu)}, {prior}"


# Variational dropout: posteriors told by alpha, their variance over their squared mean.


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


class _LogUniformKL(torch.autograd.Function):
    """:func:`log_uniform_kl` with its derivative formed beside it: one saved tensor where autograd would keep nine."""

    generate_vmap_rule = True

    @staticmethod
    def forward(precision: Tensor) -> tuple[Tensor, Tensor]:
        tiny = torch.finfo(precision.dtype).tiny  # where the quotient below would be 0 / 0
        within = precision.clamp(tiny, math.exp(40))  # beyond, the sigmoid is 0 and the power would overflow
        power = within.pow(_K3).mul_(math.exp(-_K2))
        sigmoid = (1 + power).reciprocal_()
        derivative = power.mul_(sigmoid).mul_(sigmoid).div_(within).mul_(_K1 * _K3)
        derivative.add_((1 + precision).reciprocal_(), alpha=0.5)
        return precision.log1p().mul_(0.5).add_(_K1).sub_(sigmoid, alpha=_K1), derivative

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Tensor:
        return grad * ctx.saved_tensors[0]


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
    return _Bounded.apply(x, torch.as_tensor(low, dtype=x.dtype, device=x.device), torch.as_tensor(high).to(x))


KINGMA = Divergence(kingma_kl, valid_to=0.0)
LOG_UNIFORM = Divergence(log_uniform_kl)
HIERARCHICAL = Divergence(hierarchical_kl)

Parametrisation = Literal["log_alpha", "log_sigma2", "log_sigma"]

_LOG_ALPHA = (-8.0, 8.0)  # of multiplicative noise: from 2 % of the signal to 54 times
_MIN_LOG_SIGMA2 = -40.0  # where the limit on alpha would ask for no noise at all, at a mean of 0


class FixedAlpha(nn.Module):
    """The variance alpha of multiplicative noise, as a setting."""

    value: Tensor

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value)

    def forward(self) -> Tensor:
        return self.value

    def kl(self) -> Tensor:
        return self.value.new_zeros((), dtype=_at_least_float32(self.value))


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

    def _log_alpha(self) -> Tensor:
        value = getattr(self, self.parametrisation) * self.factor
        low, high = _LOG_ALPHA
        return bounded(value, low, min(high, self.divergence.valid_to))

    def forward(self) -> Tensor:
        return self._log_alpha().exp()

    def kl(self) -> Tensor:
        log_alpha = self._log_alpha()
        return self.divergence.function(log_alpha.to(_at_least_float32(log_alpha)).neg().exp()).sum()


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
        return torch.addcmul(torch.ones_like(alpha), alpha.sqrt(), torch.randn_like(alpha))

    def sample(self) -> Tensor:
        if self.shared:
            return self.mu * self.over_weights(self.noise(self.alpha()))
        return self.mu * self.noise(self.over_weights(self.alpha()).expand_as(self.mu))

    def kl(self) -> Tensor:
        alphas = next(iter([*self.alpha.parameters(), *self.alpha.buffers()])).numel()
        return self.alpha.kl() * (1 if self.shared else self.mu.numel() / alphas)

    def extra_repr(self) -> str:
        return f"{_shape(self.mu)}, {'shared' if self.shared else 'independent'} noise"


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
        if math.isinf(self.divergence.valid_to):
            return value
        limit = self.mu.detach().square().log() + self.divergence.valid_to
        return bounded(value, -math.inf, limit.clamp_min(_MIN_LOG_SIGMA2))

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
        return torch.addcmul(self.mean, (0.5 * self._log_sigma2()).exp(), torch.randn_like(self.mu))

    def kl(self) -> Tensor:
        dtype = _at_least_float32(self.mu)
        # (mu / sigma)^2 rather than log alpha, whose logarithm of mu^2 has no gradient at mu = 0.
        precision = (self.mu.to(dtype) * (-0.5 * self._log_sigma2().to(dtype)).exp()).square()
        if math.isfinite(self.divergence.valid_to):
            precision = precision.clamp_min(math.exp(-self.divergence.valid_to))
        return self.divergence.function(precision).sum()

    def extra_repr(self) -> str:
        return f"{_shape(self.mu)}, {self.parametrisation}"


# The parameters of a posterior that say how wide it is.
SPREADS = ("rho", "log_alpha", "log_sigma2", "log_sigma")


THRESHOLD = 3.0
"""A weight with log alpha above this is removed: its noise has 20 times the power of its signal, a dropout rate of
0.95 (Molchanov et al. 2017, section 4.3)."""


def log_alpha(posterior: Any) -> Tensor:
    """For each weight log(variance / mu^2), that is -2 log of its signal-to-noise ratio; inf where mu is 0."""
    dtype = _at_least_float32(posterior.mu)
    return posterior.variance.to(dtype).log() - 2 * posterior.mu.to(dtype).abs().log()  # the square would underflow


def _at_least_float32(x: Tensor) -> torch.dtype:
    """Millions of terms are added up: never in less than float32, whatever the parameters are kept in."""
    return torch.promote_types(x.dtype, torch.float32)


def _shape(x: Tensor) -> str:
    return "x".join(str(size) for size in x.shape)
