"""Local reparameterisation: noise on a layer's outputs instead of on its weights."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bnn_lightning.core.kernels.compiling import fused
from bnn_lightning.core.kernels.memory import flat, like, shaped, without_base
from bnn_lightning.core.kernels.noise import has_own_noise, new_key, philox_quarters, standard_normal_like

_EPS = 1e-16
_BLOCK = 2**17  # numbers: four such blocks of float32 stay in the cache of two cores


def with_noise(mean: Tensor, variance: Tensor) -> Tensor:
    """Mean + sqrt(variance + eps) * zeta, zeta ~ N(0, 1), in the dtype of ``mean``: local reparameterisation.

    eps is 1e-16: without it, a patch of zeros under a layer without bias has v = 0 and the gradient of the square root
    is infinite. A convolution by Winograd's algorithm or by Fourier transforms makes -1e-7 of such a 0: below 0 the
    variance counts as 0, and has no gradient.
    """
    precise = mean.to(variance.dtype)
    if torch.compiler.is_compiling():
        y = precise + (variance.clamp_min(0) + _EPS).sqrt() * standard_normal_like(variance)  # fused by who compiles
    else:
        # Drawn here, one number tells vmap whether noise differs between its examples; it adds nothing to the noise.
        token = torch.rand((), device=mean.device)
        y = _AddNoise.apply(precise, variance, token, torch.is_grad_enabled())[0]
    return y.to(mean.dtype)


class _AddNoise(torch.autograd.Function):
    """The same, with one saved tensor where autograd keeps three: zeta / (2 std), the derivative in the variance.

    The results are tensors of their own and not views, so that what follows may change them in place.
    """

    @staticmethod
    def forward(mean: Tensor, variance: Tensor, _: Tensor, with_derivative: bool) -> tuple[Tensor, ...]:
        make = _with_philox if has_own_noise(mean) else _in_blocks
        mean, variance = mean.detach(), variance.detach()  # the compiler warns of views of what has a gradient
        results = make(flat(mean), flat(like(variance, mean)), with_derivative)
        return tuple(without_base(shaped(result, mean)) for result in results)

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


def _in_blocks(mean: Tensor, variance: Tensor, with_derivative: bool) -> list[Tensor]:
    """Block by block, each in the cache from its draw to its result."""
    results = [torch.empty_like(mean) for _ in range(1 + with_derivative)]
    size = _BLOCK if mean.device.type == "cpu" else max(1, mean.numel())
    for m, v, y, *derivative in zip(*(x.split(size) for x in (mean, variance, *results)), strict=True):
        double_std = (4 * v).clamp_min_(0).add_(4 * _EPS).sqrt_()
        zeta = derivative[0].normal_() if with_derivative else torch.randn_like(m)
        torch.addcmul(m, double_std, zeta, value=0.5, out=y)
        if with_derivative:
            zeta.div_(double_std).masked_fill_(v < 0, 0)
    return results


def _with_philox(mean: Tensor, variance: Tensor, with_derivative: bool) -> list[Tensor]:
    count, beyond = mean.numel(), -mean.numel() % 8
    if beyond or not count:  # a counter gives four numbers, and the compiler takes lengths of 0 and 1 by themselves
        mean, variance = F.pad(mean, (0, beyond or 8)), F.pad(variance, (0, beyond or 8))
    results = fused(_in_quarters)(mean, variance, new_key(mean), with_derivative)
    return [result[:count] for result in results]


def _in_quarters(mean: Tensor, variance: Tensor, key: Tensor, with_derivative: bool) -> list[Tensor]:
    """One loop, whose step takes a number from each quarter."""
    means = mean.view(4, -1)
    variances = variance.view(4, -1)
    stds = [(v.clamp_min(0) + _EPS).sqrt() for v in variances]
    zetas = philox_quarters(means.shape[1], key)
    y = [m + std * zeta for m, std, zeta in zip(means, stds, zetas, strict=True)]
    derivative = [torch.where(v < 0, 0, zeta / (2 * std)) for v, std, zeta in zip(variances, stds, zetas, strict=True)]
    return [torch.cat(parts) for parts in (y, derivative)[: 1 + with_derivative]]
