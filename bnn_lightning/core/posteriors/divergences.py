"""KL divergences that depend on alpha = variance / mean^2 only."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bnn_lightning.core.kernels.elementwise import WithDerivative


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


KINGMA = Divergence(kingma_kl, valid_to=0.0)
LOG_UNIFORM = Divergence(log_uniform_kl)
HIERARCHICAL = Divergence(hierarchical_kl)
