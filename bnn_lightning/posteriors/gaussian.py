"""Independent Gaussian weights and their priors."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bnn_lightning.compiling import fused, is_compiling
from bnn_lightning.memory import flat, like, shaped
from bnn_lightning.noise import standard_normal_like
from bnn_lightning.posteriors.base import WithDerivative, at_least_float32, shape_text

# Below this rho, softplus(rho) equals exp(rho) to rounding, so log(softplus(rho)) is rho itself. Going through the
# logarithm would end at log(0) = -inf once softplus underflows (rho < -104 in float32).
_LOG_SIGMA_IS_RHO = -30.0

_BLOCK = 2**16  # numbers: what the KL makes of them on the way stays in the cache


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), element by element; torch's own takes 2.6 times as long where exp(x) is small."""
    return _Softplus.apply(x)


def squared_softplus(x: Tensor) -> Tensor:
    """The square of :func:`softplus`, with one saved tensor and its gradient in one pass."""
    return _SquaredSoftplus.apply(x)[0]


class _SquaredSoftplus(WithDerivative):
    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        y = softplus(x)
        return y.square(), x.sigmoid().mul_(y).mul_(2)


class _Softplus(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        # Flat, because compiled code is for any length, but for one number of axes.
        return shaped(fused(_softplus)(flat(x)), x) if is_compiling() and x.numel() >= 2**15 else _softplus(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].sigmoid()


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
        return softplus(self.rho)

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return squared_softplus(self.rho)

    def sample(self) -> Tensor:
        return torch.addcmul(self.mu, self.sigma, standard_normal_like(self.mu))

    def log_alpha(self) -> Tensor:
        dtype = at_least_float32(self.mu)
        return 2 * (_log_softplus(self.rho.to(dtype)) - self.mu.to(dtype).abs().log())

    def kl(self) -> Tensor:
        return self.kl_of_all([self])

    @staticmethod
    def kl_of_all(gaussians: Sequence["Gaussian"]) -> Tensor:
        """The sum of their KLs, in one pass over those whose prior is the normal one."""
        terms = [one.prior.kl(*one._moments()) for one in gaussians if one.prior is not None]
        groups: dict[tuple[torch.dtype, torch.device], list[Gaussian]] = {}
        for one in gaussians:
            if one.prior is None:
                groups.setdefault((at_least_float32(one.mu), one.mu.device), []).append(one)
        for (dtype, _), group in groups.items():
            group.sort(key=lambda one: one.mu.numel())
            names = ("mu", "rho", "prior_mu", "prior_sigma")
            terms.append(_GaussianKL.apply(len(group), *(getattr(one, n).to(dtype) for n in names for one in group))[0])
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]

    def _moments(self) -> tuple[Tensor, Tensor, Tensor]:
        dtype = at_least_float32(self.mu)
        rho = self.rho.to(dtype)
        return self.mu.to(dtype), softplus(rho), _log_softplus(rho)

    def extra_repr(self) -> str:
        if self.prior is not None:
            return f"{shape_text(self.mu)}, {self.prior}"
        one = self.prior_sigma.numel() == 1
        prior = f"prior_sigma={self.prior_sigma.item():.4g}" if one else "a prior for each element"
        return f"{shape_text(self.mu)}, {prior}"


def _log_softplus(rho: Tensor) -> Tensor:
    return softplus(rho.clamp_min(_LOG_SIGMA_IS_RHO)).log() + (rho - _LOG_SIGMA_IS_RHO).clamp_max(0)


def _softplus(x: Tensor) -> Tensor:
    precise = x.to(at_least_float32(x))
    return (_log1p_exp(precise.abs().neg()) + precise.clamp_min(0)).to(x.dtype)


def _log1p_exp(x: Tensor) -> Tensor:
    """log(1 + exp(x)) for x up to 0."""
    e = x.exp()
    if torch.compiler.is_compiling():
        return e.log1p()  # inductor's atanh is far off for small numbers
    return (e / (2 + e)).atanh_().mul_(2)  # the same; torch's log1p is slow for small numbers


class _GaussianKL(torch.autograd.Function):
    """The sum of :func:`gaussian_kl` over tensors, with all gradients formed in the same pass.

    Takes ``count`` means, as many rho, prior means and prior standard deviations, whose shapes are the means'.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(count: int, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total = sum(mu.numel() for mu in tensors[:count])
        in_mu, in_rho = tensors[0].new_empty(total), tensors[0].new_empty(total)
        kls, start = [], 0
        for piece in _pieces(list(zip(*(tensors[k * count : (k + 1) * count] for k in range(4)), strict=True))):
            part, *gradients = fused(_kl_and_gradients)(*piece)
            kls.append(part)
            stop = start + len(gradients[0])
            in_mu[start:stop], in_rho[start:stop] = gradients
            start = stop
        return torch.stack(kls).sum(), in_mu, in_rho

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:], *inputs[1 : 1 + inputs[0]])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        in_mu, in_rho, *means = ctx.saved_tensors
        sizes = [mean.numel() for mean in means]
        gradients = [
            shaped(part, mean)
            for total in (in_mu, in_rho)
            for part, mean in zip((grad * total).split(sizes), means, strict=True)
        ]
        return None, *gradients, *(None for _ in range(2 * len(means)))


def _pieces(found: Sequence[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """What goes through :func:`_kl_and_gradients` at once: all small tensors, then the others, in blocks for the cache.

    ``found`` has the small tensors first. Priors stay one number where that is all they are, for large tensors.
    """
    small = [four for four in found if four[0].numel() < _BLOCK]
    if small:
        yield tuple(torch.cat([flat(like(four[k].expand_as(four[0]), four[0])) for four in small]) for k in range(4))
    for mu, *others in found[len(small) :]:
        size = _BLOCK if mu.device.type == "cpu" and not is_compiling() else mu.numel()
        parts = [x if x.dim() == 0 else flat(like(x.expand_as(mu), mu)) for x in (mu, *others)]
        yield from zip(
            *(repeat(x, -(-mu.numel() // size)) if x.dim() == 0 else x.split(size) for x in parts), strict=True
        )


def _kl_and_gradients(mu: Tensor, rho: Tensor, prior_mu: Tensor, prior_sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    within = rho.clamp_min(_LOG_SIGMA_IS_RHO)
    sigma = _softplus(within)
    log_sigma = sigma.log().add_((rho - _LOG_SIGMA_IS_RHO).clamp_max_(0))
    kl = gaussian_kl(mu, sigma, prior_mu, prior_sigma, log_sigma).sum()
    precision = prior_sigma.square().reciprocal_()
    # d log sigma / d rho = sigmoid / sigma, which is 1 where both would underflow.
    in_rho = sigma.square().mul_(precision).sub_(1).mul_(within.sigmoid_().div_(sigma))
    return kl, (mu - prior_mu).mul_(precision), in_rho
