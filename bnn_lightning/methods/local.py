"""Local reparameterisation: noise on a layer's outputs instead of on its weights."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bnn_lightning.methods.base import Op
from bnn_lightning.posteriors import Posterior


def local_reparameterisation(op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
    """M + sqrt(v + eps) * zeta: what independent random weights would give each output, drawn at the output.

    m = op(x, mean of w, mean of b), v = op(x^2, variance of w, variance of b), zeta ~ N(0, 1) of their shape.
    Kingma et al. 2015 (arXiv:1506.02557), section 2.3.

    eps is 1e-16: without it, a patch of zeros under a layer without bias has v = 0 and the gradient of the square root
    is infinite. The mean of the bias has no place in v, which it could make negative.
    """
    mean = op(x, weight.mean, None if bias is None else bias.mean)
    # sigma^2 is near 1e-5: half precision rounds it to 8 bits or to zero, so this path stays in float32.
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(x.dtype, torch.float32)
        variance = op(
            x.to(dtype).square(), weight.variance.to(dtype), None if bias is None else bias.variance.to(dtype)
        )
        return AddNoise.apply(mean.to(dtype), variance, standard_normal_like(variance))[0].to(mean.dtype)


class AddNoise(torch.autograd.Function):
    """mean + sqrt(variance + 1e-16) * noise, with one saved tensor where autograd would keep three."""

    generate_vmap_rule = True

    @staticmethod
    def forward(mean: Tensor, variance: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        std = (variance + 1e-16).sqrt_()
        return torch.addcmul(mean, std, noise), torch.div(noise, std).mul_(0.5)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, Tensor, None]:
        (half_noise_over_std,) = ctx.saved_tensors
        return grad, grad * half_noise_over_std, None


def standard_normal_like(x: Tensor) -> Tensor:
    """N(0, 1) noise with the shape and memory format of ``x``."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        # Drawing straight into a channels_last tensor takes torch's slow strided path, several times as long.
        return torch.randn_like(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return torch.randn_like(x)
