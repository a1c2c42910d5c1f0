"""Mean and variance of the larger of two independent Gaussians, and of a rectified one: element by element, in blocks.

About fifteen operations an element, of which torch would send each through memory: blocks stay in the cache, or, while
compiling is on, one loop does all. In a graph that is compiled or exported they are the plain formulas.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bnn_lightning.core.kernels.compiling import fused, is_compiling
from bnn_lightning.core.kernels.memory import flatten_in_memory_order, in_format_of, unflatten_like

_BLOCK = 2**16  # elements of a block: of ten such tensors those in use stay in the cache
_TINY = 1e-30  # added to variances: where both are 0 the larger mean is left, without 0 / 0
_HALF_RSQRT_PI = 0.5 / math.sqrt(math.pi)

Formula = Callable[..., tuple[Tensor, Tensor]]


def max_moments(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of max(X1, X2) for independent X1 ~ N(m1, v1) and X2 ~ N(m2, v2); all of one shape.

    With t^2 = v1 + v2, d = m1 - m2 and a = d / t: mean m2 + e and variance e (d - e) + v1 Phi(a) + v2 Phi(-a), where e
    = d Phi(a) + t phi(a) is what X1 adds. Clark 1961, "The greatest of a finite set of random variables", equations 2
    and 3, taken from m2 instead of 0: squares of means, which float32 would round, do not occur.
    """
    return _in_one_loop(_max_formula, m1, v1, m2, v2)


def relu_moments(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of max(X, 0) for X ~ N(mean, variance): :func:`max_moments` with a 0 that is no variable."""
    return _in_one_loop(_relu_formula, mean, variance)


def by_blocks(formula: Formula, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    """``formula(*tensors)``, an element-wise function of tensors of one shape that gives two such tensors.

    Results have the memory format of the first tensor.
    """
    first = tensors[0]
    if torch.compiler.is_compiling() or first.numel() <= _BLOCK or first.device.type != "cpu":
        return formula(*tensors)
    flat = [flatten_in_memory_order(in_format_of(tensor, first)) for tensor in tensors]
    results = torch.empty_like(flat[0]), torch.empty_like(flat[0])
    for parts in zip(*(tensor.split(_BLOCK) for tensor in (*results, *flat)), strict=True):
        for part, value in zip(parts, formula(*parts[2:]), strict=False):
            part.copy_(value)
    return unflatten_like(results[0], first), unflatten_like(results[1], first)


def _in_one_loop(formula: Formula, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and compiled while compiling is on."""
    if not is_compiling():
        return by_blocks(formula, *tensors)
    mean, variance = fused(formula)(*(flatten_in_memory_order(in_format_of(x, tensors[0])) for x in tensors))
    return unflatten_like(mean, tensors[0]), unflatten_like(variance, tensors[0])


def _max_formula(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor) -> tuple[Tensor, Tensor]:
    difference = m1 - m2
    above, density = _above_zero(difference, v1 + v2)
    excess = torch.addcmul(density, difference, above)
    # Not m2 + excess, in which a mean would be lost beside the -1e18 that stands for no element.
    mean = torch.lerp(m2, m1, above).add_(density)
    return mean, torch.lerp(v2, v1, above).addcmul_(excess, difference.sub_(excess)).clamp_min_(0)


def _relu_formula(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    above, rectified = _above_zero(mean, variance.clone())
    rectified.addcmul_(mean, above).clamp_min_(0)
    return rectified, above.mul_(variance).addcmul_(rectified, mean - rectified).clamp_min_(0)


def _above_zero(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """P(X > 0) = Phi(a) and std * phi(a), with a = mean / std, of X ~ N(mean, variance), whose memory is used."""
    root = variance.mul_(2).add_(_TINY).sqrt_()
    b = mean / root
    probability = torch.erf(b).add_(1).mul_(0.5)
    return probability, b.square_().neg_().exp_().mul_(root).mul_(_HALF_RSQRT_PI)
