"""What element-wise functions share: the precision of sums, and saved derivatives."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class WithDerivative(torch.autograd.Function):
    """A function of one tensor, element by element, whose ``forward`` gives its derivative beside its value."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> Tensor:
        return grad * ctx.saved_tensors[0]


def at_least_float32(x: Tensor) -> torch.dtype:
    """Millions of terms are added up: never in less than float32, whatever the parameters are kept in."""
    return torch.promote_types(x.dtype, torch.float32)
