"""KL divergences that are functions of alpha = variance / mean^2 alone, as in variational dropout."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bnn_lightning.core.kernels.elementwise import WithDerivative


class Divergence(NamedTuple):
    """A KL divergence that is a function of alpha alone."""

    function: Callable[[Tensor], Tensor]
    """The KL of each element in nats as a function of 1/alpha; value and gradient must be finite also at 1/alpha = 0,
    a mean of 0, unless ``valid_to`` excludes it."""
    valid_to: float = math.inf
    """The largest log alpha that the function is valid for; posteriors keep alpha below it."""


_C1, _C2, _C3 = 1.16145124, -1.50204118, 0.58629921
_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695


def kingma_kl(precision: Tensor) -> Tensor:
    """KL to the log-uniform prior for alpha <= 1, by a polynomial: c - log(a)/2 - c1 a - c2 a^2 - c3 a^3, a = alpha.

    Kingma et al. 2015 (arXiv:1506.02557), eq. 14. The constant, which the improper prior leaves open, is
    c = c1 + c2 + c3, so that the value at alpha = 1 is 0. The polynomial was fitted to alpha <= 1; for larger alpha its
    error has no limit, so posteriors must keep alpha below 1.

    Args:
        precision: 1/alpha, any shape.
    """
    alpha = 1 / precision
    return 0.5 * precision.log() + (_C1 + _C2 + _C3) - alpha * (_C1 + alpha * (_C2 + alpha * _C3))


def log_uniform_kl(precision: Tensor) -> Tensor:
    """KL to the log-uniform prior for every alpha: k1 - k1 sigmoid(k2 + k3 log alpha) + log(1 + 1/alpha) / 2.

    Molchanov et al. 2017 (arXiv:1701.05369), eq. 14, within 0.01 nats of the exact value. The constant, which the
    improper prior leaves open, makes it 0 as alpha goes to infinity. Because the prior is improper, nll + KL/N is a
    regularised loss, not a bound on -log p(data) / N.

    Args:
        precision: 1/alpha, any shape.
    """
    return _LogUniformKL.apply(precision)[0]


class _LogUniformKL(WithDerivative):
    """:func:`log_uniform_kl` with one saved tensor; autograd would keep nine."""

    @staticmethod
    def forward(precision: Tensor) -> tuple[Tensor, Tensor]:
        tiny = torch.finfo(precision.dtype).tiny  # below, the division of the derivative would be 0 / 0
        clamped = precision.clamp(tiny, math.exp(40))  # above, the sigmoid is 0 and the power would overflow
        power = clamped.pow(_K3).mul_(math.exp(-_K2))
        sigmoid = (1 + power).reciprocal_()
        derivative = power.mul_(sigmoid).mul_(sigmoid).div_(clamped).mul_(_K1 * _K3)
        derivative.add_((1 + precision).reciprocal_(), alpha=0.5)
        return precision.log1p().mul_(0.5).add_(_K1).sub_(sigmoid, alpha=_K1), derivative


def hierarchical_kl(precision: Tensor) -> Tensor:
    """KL to N(0, gamma) with the optimal gamma = mu^2 + sigma^2 for each weight: log(1 + 1/alpha) / 2.

    Liu et al. 2019 (arXiv:1811.07533); also Kharitonov et al. 2018, as empirical Bayes.

    Args:
        precision: 1/alpha, any shape.
    """
    return 0.5 * precision.log1p()


KINGMA = Divergence(kingma_kl, valid_to=0.0)
LOG_UNIFORM = Divergence(log_uniform_kl)
HIERARCHICAL = Divergence(hierarchical_kl)
