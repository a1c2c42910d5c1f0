"""Local reparameterisation: noise on a layer's outputs instead of on its weights."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bnn_lightning.core.kernels.compiling import are_small, fused
from bnn_lightning.core.kernels.function import Function
from bnn_lightning.core.kernels.memory import (
    flatten_in_memory_order,
    in_format_of,
    unflatten_like,
    without_view_base,
)
from bnn_lightning.core.kernels.noise import draw_key, philox_quarters, standard_normal_like, uses_philox

_EPS = 1e-16
_BLOCK = 2**17  # elements of a block: four such blocks of float32 fit into the cache of two cores


def with_noise(mean: Tensor, variance: Tensor) -> Tensor:
    """Local reparameterisation: mean + sqrt(max(variance, 0) + eps) * zeta with zeta ~ N(0, 1), independent elements.

    eps is 1e-16: a patch of zeros under a layer without bias has variance 0, where the gradient of the square root is
    infinite. Convolutions by Winograd's algorithm or by Fourier transforms return about -1e-7 for such a 0; negative
    variances count as 0 and get no gradient. Kingma et al. 2015 (arXiv:1506.02557), section 2.3.

    Args:
        mean: any shape.
        variance: the same shape. The sum is computed in its dtype: float32 also where the layer runs in half precision.

    Returns:
        a tensor of the shape and dtype of ``mean``.
    """
    precise_mean = mean.to(variance.dtype)
    if torch.compiler.is_compiling():
        # The caller's compiler fuses the plain formula.
        return _plainly(precise_mean, variance).to(mean.dtype)
    # The noise does not use this number. Under vmap it is batched if and only if vmap's randomness is "different",
    # which tells _AddNoise.vmap whether each example gets noise of its own. Small tensors take it too, so that the
    # generator goes on as it did before they were told apart.
    token = torch.rand((), device=mean.device)
    if are_small(variance):
        return _plainly(precise_mean, variance).to(mean.dtype)
    return _AddNoise.apply(precise_mean, variance, token, torch.is_grad_enabled())[0].to(mean.dtype)


def _plainly(mean: Tensor, variance: Tensor) -> Tensor:
    return mean + (variance.clamp_min(0) + _EPS).sqrt() * standard_normal_like(variance)


class _AddNoise(Function):
    """:func:`with_noise` with one saved tensor, zeta / (2 std), the derivative in variance; autograd would keep three.

    Its results are not views, so that the operations that follow may change them in place.
    """

    @staticmethod
    def forward(mean: Tensor, variance: Tensor, _: Tensor, with_derivative: bool) -> tuple[Tensor, ...]:
        add_noise = _add_philox_noise if uses_philox(mean) else _add_torch_noise
        mean, variance = mean.detach(), variance.detach()  # the compiler warns about views of tensors with a gradient
        results = add_noise(
            flatten_in_memory_order(mean), flatten_in_memory_order(in_format_of(variance, mean)), with_derivative
        )
        return tuple(without_view_base(unflatten_like(result, mean)) for result in results)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], mean: Tensor, variance: Tensor, token: Tensor, with_derivative: bool
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        mean, variance = (
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip((mean, variance), in_dims, strict=False)
        )
        zeta = torch.randn_like(mean[0]).expand_as(mean) if in_dims[2] is None else torch.randn_like(mean)
        std = (variance.clamp_min(0) + _EPS).sqrt()
        y = torch.addcmul(mean, std, zeta)
        results = (y, (zeta / (2 * std)).masked_fill(variance < 0, 0)) if with_derivative else (y,)
        return results, (0,) * len(results)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, None, None]:
        return grad, grad * ctx.saved_tensors[0], None, None


def _add_torch_noise(mean: Tensor, variance: Tensor, with_derivative: bool) -> list[Tensor]:
    """``[y]`` or ``[y, derivative]`` for flat tensors, block by block: each block stays in the cache."""
    results = [torch.empty_like(mean) for _ in range(1 + with_derivative)]
    size = _BLOCK if mean.device.type == "cpu" else max(1, mean.numel())
    for m, v, y, *derivative in zip(*(x.split(size) for x in (mean, variance, *results)), strict=True):
        double_std = (4 * v).clamp_min_(0).add_(4 * _EPS).sqrt_()
        zeta = derivative[0].normal_() if with_derivative else torch.randn_like(m)
        torch.addcmul(m, double_std, zeta, value=0.5, out=y)
        if with_derivative:
            zeta.div_(double_std).masked_fill_(v < 0, 0)
    return results


def _add_philox_noise(mean: Tensor, variance: Tensor, with_derivative: bool) -> list[Tensor]:
    """``[y]`` or ``[y, derivative]`` for flat tensors, in one compiled loop."""
    count, padding = mean.numel(), -mean.numel() % 8
    if padding or not count:  # a Philox counter gives four numbers, and the compiler specialises for lengths 0 and 1
        mean, variance = F.pad(mean, (0, padding or 8)), F.pad(variance, (0, padding or 8))
    results = fused(_add_noise_to_quarters)(mean, variance, draw_key(mean), with_derivative)
    return [result[:count] for result in results]


def _add_noise_to_quarters(mean: Tensor, variance: Tensor, key: Tensor, with_derivative: bool) -> list[Tensor]:
    """Step i of the loop computes element i of each quarter of the tensors: the four numbers of one Philox counter."""
    means = mean.view(4, -1)
    variances = variance.view(4, -1)
    stds = [(v.clamp_min(0) + _EPS).sqrt() for v in variances]
    zetas = philox_quarters(means.shape[1], key)
    y = [m + std * zeta for m, std, zeta in zip(means, stds, zetas, strict=True)]
    derivative = [torch.where(v < 0, 0, zeta / (2 * std)) for v, std, zeta in zip(variances, stds, zetas, strict=True)]
    return [torch.cat(quarters) for quarters in (y, derivative)[: 1 + with_derivative]]
