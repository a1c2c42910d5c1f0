"""Mean and variance of a rectified Gaussian: element by element, in blocks or in one compiled loop.

Torch would send each of some twenty operations through memory: blocks stay in the cache, or, while compiling is on, one
loop does all. In a graph that is compiled or exported they are the plain formulas.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bnn_lightning.core.kernels.compiling import fused, is_compiling
from bnn_lightning.core.kernels.memory import flatten_in_memory_order, in_format_of, unflatten_like

_BLOCK = 2**16  # elements of a block: of ten such tensors those in use stay in the cache
_TINY = 1e-30  # added to variances: where they are 0, max(m, 0) is left, without 0 / 0
_HALF_RSQRT_PI = 0.5 / math.sqrt(math.pi)
_FAR = 80.0  # exp(-80) is nothing beside any activation; exponentials that float32 cannot hold take ten times as long

Formula = Callable[..., tuple[Tensor, Tensor]]


def relu_moments(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of max(X, 0) for X ~ N(m, v): e = m Phi(a) + s phi(a) and e (m - e) + v Phi(a).

    Here s = sqrt(v) and a = m / s; Clark 1961, "The greatest of a finite set of random variables", equations 2 and 3
    with a second variable that is 0. Squares of means, which float32 would round, do not occur. Results have the shape
    and the memory format of ``mean``.
    """
    if not is_compiling():
        return by_blocks(_relu_formula, mean, variance)
    flat = (flatten_in_memory_order(in_format_of(x, mean)) for x in (mean, variance))
    first, second = fused(_relu_formula)(*flat)
    return unflatten_like(first, mean), unflatten_like(second, mean)


def relu_slope(mean: Tensor, variance: Tensor) -> Tensor:
    """P(X > 0) for X ~ N(mean, variance), the expected slope of max(X, 0)."""
    return torch.erf(mean / (2 * variance + _TINY).sqrt()).add_(1).mul_(0.5)


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


def _relu_formula(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    root = variance.mul(2).add_(_TINY).sqrt_()
    b = mean / root
    above = torch.erf(b).add_(1).mul_(0.5)
    density = b.square_().clamp_max_(_FAR).neg_().exp_()
    rectified = root.mul_(density).mul_(_HALF_RSQRT_PI).addcmul_(mean, above).clamp_min_(0)
    return rectified, above.mul_(variance).addcmul_(rectified, mean - rectified).clamp_min_(0)
