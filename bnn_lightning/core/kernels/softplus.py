"""Softplus, its square, its logarithm and its inverse, with gradients that save one tensor."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn_lightning.core.kernels.compiling import are_small, fused, is_compiling
from bnn_lightning.core.kernels.elementwise import WithDerivative, at_least_float32
from bnn_lightning.core.kernels.function import Function
from bnn_lightning.core.kernels.memory import flatten_in_memory_order, unflatten_like

# Below this rho, softplus(rho) equals exp(rho) to rounding, so log(softplus(rho)) is rho itself. The logarithm of a
# softplus that has underflowed (rho < -104 in float32) would be -inf.
LOG_SIGMA_IS_RHO = -30.0
_SOFTPLUS_IS_X = 40.0  # above it, in float64 too; torch's 20 is meant for float32


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), element by element.

    torch's softplus takes 2.6 times as long where exp(x) is small, as it is for posterior standard deviations, but is
    one call.
    """
    if are_small(x):
        return F.softplus(x, threshold=_SOFTPLUS_IS_X)
    return _Softplus.apply(x)


def squared_softplus(x: Tensor) -> Tensor:
    """softplus(x)^2, element by element, with one saved tensor and its gradient in one pass."""
    if are_small(x):
        return softplus(x).square()
    return _SquaredSoftplus.apply(x)[0]


class _SquaredSoftplus(WithDerivative):
    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        y = _fused_softplus(x)
        return y.square(), x.sigmoid().mul_(y).mul_(2)


class _Softplus(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _fused_softplus(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].sigmoid()


def log_softplus(rho: Tensor) -> Tensor:
    """log(softplus(rho)), element by element, finite also where softplus underflows."""
    return softplus(rho.clamp_min(LOG_SIGMA_IS_RHO)).log() + (rho - LOG_SIGMA_IS_RHO).clamp_max(0)


def inverse_softplus(sigma: Tensor) -> Tensor:
    """Rho with softplus(rho) = sigma > 0, log(exp(sigma) - 1), finite also where exp(sigma) overflows."""
    return sigma + torch.log(-torch.expm1(-sigma))


def plain_softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) in operations that inductor can compile: log(1 + exp(-|x|)) + max(x, 0), in the dtype of ``x``.

    Half precision is computed in float32. For gradients use :func:`softplus`, which saves ``x`` alone.
    """
    precise = x.to(at_least_float32(x))
    return (_log1p_exp(precise.abs().neg()) + precise.clamp_min(0)).to(x.dtype)


def _fused_softplus(x: Tensor) -> Tensor:
    if is_compiling() and x.numel() >= 2**15:
        # Compiled code takes any length, but is compiled again for each number of axes: hence the flat view.
        return unflatten_like(fused(plain_softplus)(flatten_in_memory_order(x)), x)
    return plain_softplus(x)


def _log1p_exp(x: Tensor) -> Tensor:
    """log(1 + exp(x)) for x <= 0."""
    exp_x = x.exp()
    if torch.compiler.is_compiling():
        return exp_x.log1p()  # inductor's atanh is inaccurate for small numbers
    return (exp_x / (2 + exp_x)).atanh_().mul_(2)  # equal to log1p; torch's log1p is slow for small numbers
