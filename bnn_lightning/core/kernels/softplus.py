"""Softplus, its square and its logarithm, with what backward needs and no more."""

from typing import Any

import torch
from torch import Tensor

from bnn_lightning.core.kernels.compiling import fused, is_compiling
from bnn_lightning.core.kernels.elementwise import WithDerivative, at_least_float32
from bnn_lightning.core.kernels.memory import flat, shaped

# Below this rho, softplus(rho) equals exp(rho) to rounding, so log(softplus(rho)) is rho itself. Going through the
# logarithm would end at log(0) = -inf once softplus underflows (rho < -104 in float32).
LOG_SIGMA_IS_RHO = -30.0


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
        return shaped(fused(plain_softplus)(flat(x)), x) if is_compiling() and x.numel() >= 2**15 else plain_softplus(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].sigmoid()


def log_softplus(rho: Tensor) -> Tensor:
    """log(softplus(rho)), also where softplus underflows."""
    return softplus(rho.clamp_min(LOG_SIGMA_IS_RHO)).log() + (rho - LOG_SIGMA_IS_RHO).clamp_max(0)


def plain_softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) without a gradient of its own, for tensors of any float dtype."""
    precise = x.to(at_least_float32(x))
    return (_log1p_exp(precise.abs().neg()) + precise.clamp_min(0)).to(x.dtype)


def _log1p_exp(x: Tensor) -> Tensor:
    """log(1 + exp(x)) for x up to 0."""
    e = x.exp()
    if torch.compiler.is_compiling():
        return e.log1p()  # inductor's atanh is far off for small numbers
    return (e / (2 + e)).atanh_().mul_(2)  # the same; torch's log1p is slow for small numbers
