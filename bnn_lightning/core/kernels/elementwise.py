"""Shared by element-wise functions: the precision of sums, and an autograd function that saves its derivative."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bnn_lightning.core.kernels.function import Function


class WithDerivative(Function):
    """Base class of element-wise functions whose ``forward`` returns ``(value, derivative)``.

    Backward multiplies by the saved derivative, so autograd keeps one tensor instead of every intermediate result.
    """

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> Tensor:
        return grad * ctx.saved_tensors[0]


def float64_where_known(x: Tensor) -> torch.dtype:
    """float64, for differences of numbers that are nearly equal; else :func:`at_least_float32`.

    Apple's GPUs have no float64, and the runtimes that exported graphs are for may have none.
    """
    return at_least_float32(x) if x.device.type == "mps" or torch.compiler.is_exporting() else torch.float64


def at_least_float32(x: Tensor) -> torch.dtype:
    """The dtype of ``x`` if it is float32 or float64, float32 for half precision.

    KLs, log-probabilities and variances are computed in this dtype: they sum millions of terms.
    """
    return torch.promote_types(x.dtype, torch.float32)
