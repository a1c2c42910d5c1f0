"""A clamp whose gradient still leads back inside."""

from typing import Any

import torch
from torch import Tensor


class _Bounded(torch.autograd.Function):
    """clamp(x, low, high) whose gradient still passes where it leads back inside, so that nothing dies on a bound."""

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
        # A step goes against the gradient: at the upper bound a positive one leads inside, at the lower a negative one.
        outwards = ((x >= high) & (grad < 0)) | ((x <= low) & (grad > 0))
        return grad.masked_fill(outwards, 0), None, None


def bounded(x: Tensor, low: float, high: float | Tensor) -> Tensor:
    """``x`` within [low, high], with the gradient of projected descent: stopped only where it leads further out.

    A plain clamp has no gradient at its bounds, so a parameter that starts or arrives there never moves again.
    """
    # A number becomes a tensor on its device: one that is copied there would have the program wait for the device.
    bounds = (bound.to(x) if isinstance(bound, Tensor) else x.new_full((), bound) for bound in (low, high))
    return _Bounded.apply(x, *bounds)
