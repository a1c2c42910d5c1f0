"""A clamp with the gradient of projected gradient descent."""

from typing import Any

import torch
from torch import Tensor

from bnn_lightning.core.kernels.function import Function


class _Bounded(Function):
    """:func:`bounded` for tensors; torch's clamp has a zero gradient at and beyond its bounds."""

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
        # A descent step moves x against the gradient: a negative gradient pushes it over the upper bound, a positive
        # one over the lower.
        outwards = ((x >= high) & (grad < 0)) | ((x <= low) & (grad > 0))
        return grad.masked_fill(outwards, 0), None, None


def bounded(x: Tensor, low: float, high: float | Tensor) -> Tensor:
    """clamp(x, low, high), element by element, with the gradient of projected gradient descent.

    At or beyond a bound the gradient is 0 only if a descent step would move ``x`` further out; otherwise it passes
    unchanged. With a plain clamp a parameter that reaches a bound has no gradient and stays there for ever. Where ``x``
    is bounded several times in a step, as log alpha is for the noise and for the KL, each time counts by itself: of
    gradients that disagree at a bound, the inward ones remain.

    Args:
        x: any shape.
        low: the lower bound.
        high: the upper bound; a tensor must broadcast to ``x``.
    """
    # Bounds become tensors on the device of x: copying a number to a GPU would wait for the GPU.
    bounds = (bound.to(x) if isinstance(bound, Tensor) else x.new_full((), bound) for bound in (low, high))
    return _Bounded.apply(x, *bounds)
