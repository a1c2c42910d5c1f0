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

_BLOCK = 2**17  # elements of a block: of ten such tensors those in use stay in the cache
_TINY = 1e-30  # the least variance: where it is 0, max(m, 0) is left, without 0 / 0
_HALF_RSQRT_PI = 0.5 / math.sqrt(math.pi)
_LOG2_E = 1 / math.log(2)
_FAR = 80.0  # exp(-80) is nothing beside any activation; exponentials that float32 cannot hold take ten times as long

Formula = Callable[..., tuple[Tensor, ...]]


def relu_moments(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of max(X, 0) for X ~ N(m, v): e = m Phi(a) + s phi(a) and e (m - e) + v Phi(a).

    Here s = sqrt(v) and a = m / s; Clark 1961, "The greatest of a finite set of random variables", equations 2 and 3
    with a second variable that is 0. Squares of means, which float32 would round, do not occur. Results have the shape
    and the memory format of ``mean``.
    """
    if not is_compiling():
        first, second = by_blocks(_relu_formula, mean, variance)
        return first, second
    flat = (flatten_in_memory_order(in_format_of(x, mean)) for x in (mean, variance))
    first, second = fused(_relu_formula)(*flat)
    return unflatten_like(first, mean), unflatten_like(second, mean)


def relu_moments_and_slope(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`relu_moments`, and P(X > 0) = Phi(a), the expected slope of max(X, 0)."""
    first, second, erf = by_blocks(_with_erf, mean, variance)
    return first, second, erf.add_(1).mul_(0.5)


def by_blocks(formula: Formula, *tensors: Tensor) -> tuple[Tensor, ...]:
    """``formula(*tensors)``, an element-wise function of tensors of one shape that gives several such tensors.

    Results have the memory format of the first tensor.
    """
    first = tensors[0]
    if torch.compiler.is_compiling() or first.numel() <= _BLOCK or first.device.type != "cpu":
        return formula(*tensors)
    blocks = zip(
        *(flatten_in_memory_order(in_format_of(tensor, first)).split(_BLOCK) for tensor in tensors), strict=True
    )
    results: list[Tensor] = []
    for number, block in enumerate(blocks):
        values = formula(*block)
        results = results or [value.new_empty(first.numel()) for value in values]
        for result, value in zip(results, values, strict=True):
            result[number * _BLOCK : number * _BLOCK + len(value)] = value
    return tuple(unflatten_like(result, first) for result in results)


def _relu_formula(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    return _with_erf(mean, variance)[:2]


def _with_erf(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of max(X, 0), and erf(a / sqrt 2) = 2 Phi(a) - 1.

    Factors are those that ``alpha`` and ``value`` take: of a few elements a product with a number costs two more calls.
    """
    root = torch.add(variance, variance).clamp_min_(_TINY).sqrt_()
    b = mean / root
    erf = torch.erf(b)
    power = b.square_().clamp_max_(_FAR)
    # In torch's own loops exp2 takes a third of the time of exp; ONNX has no exp2.
    density = power.neg_().exp_() if torch.compiler.is_compiling() else power.mul_(-_LOG2_E).exp2_()
    rectified = torch.add(mean, mean, alpha=-0.5).addcmul_(mean, erf, value=0.5)
    rectified = rectified.addcmul_(root, density, value=_HALF_RSQRT_PI).clamp_min_(0)
    spread = torch.add(variance, variance, alpha=-0.5).addcmul_(variance, erf, value=0.5)
    return rectified, spread.addcmul_(rectified, mean - rectified).clamp_min_(0), erf
