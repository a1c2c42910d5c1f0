"""Moment rules of pooling: averages, which are linear; and maxima, by a tree of the larger of two."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_lightning.core.kernels.gaussian_max import max_moments
from bnn_lightning.core.moments.rules import Moments, MomentsError, Rule, moment_rule

_NOTHING = -1e18  # the mean of what stands outside an image: below all others, and its square is finite


def average(x: Moments, dims: tuple[int, ...], keepdim: bool = False) -> Moments:
    """The mean over ``dims``, whose elements count as independent: the variance is the mean variance over their number.

    Raises:
        MomentsError: when it is over the examples of a batch.
    """
    dims = tuple(dim % x.mean.dim() for dim in dims)
    if 0 in dims:
        raise MomentsError("a network that takes a mean over the examples of a batch")
    count = 1
    for dim in dims:
        count *= x.mean.shape[dim]
    return Moments(x.mean.mean(dims, keepdim), x.variance.mean(dims, keepdim) / count)


def average_pool(x: Moments, pool: nn.Module, count: int) -> Moments:
    """What ``pool``, a mean over windows of ``count`` elements, makes of independent elements."""
    return Moments(pool(x.mean), pool(x.variance) / count)


def max_pool(
    x: Moments,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool = False,
) -> Moments:
    """The largest element of each window, axis by axis, each by a balanced tree of :func:`max_moments`.

    The larger of two is no Gaussian, but enters the next level as one with its mean and variance (Clark 1961).
    """
    first = x.mean.dim() - len(kernel)
    for axis, settings in enumerate(zip(kernel, stride, padding, dilation, strict=True), start=first):
        x = _max_along(x, axis, *settings, ceil_mode)
    return x


def _max_along(
    x: Moments, axis: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> Moments:
    size, reach = x.mean.shape[axis], dilation * (kernel - 1) + 1
    outputs = (size + 2 * padding - reach + (stride - 1) * ceil_mode) // stride + 1
    if ceil_mode and (outputs - 1) * stride >= size + padding:  # a window must begin within the image
        outputs -= 1
    behind = max(0, (outputs - 1) * stride + reach - size - padding)
    if padding or behind:
        edges = [0, 0] * (x.mean.dim() - 1 - axis) + [padding, behind]
        x = Moments(F.pad(x.mean, edges, value=_NOTHING), F.pad(x.variance, edges))
    starts = [number * dilation for number in range(kernel)]
    places = [(*(slice(None),) * axis, slice(start, start + (outputs - 1) * stride + 1, stride)) for start in starts]
    return _largest([Moments(x.mean[place], x.variance[place]) for place in places])


def _largest(parts: list[Moments]) -> Moments:
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [Moments(*max_moments(*a, *b)) for a, b in pairs] + parts[len(parts) & ~1 :]
    return parts[0]


def as_tuple(value: Any, count: int) -> tuple[int, ...]:
    """``value`` for each of ``count`` axes, as torch's pooling reads its settings."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * count


@moment_rule(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
def _max_pool(layer: Any) -> Rule:
    if layer.return_indices:
        raise MomentsError(f"a network whose {type(layer).__name__} gives indices")
    count = int(type(layer).__name__[-2])
    names = ("kernel_size", "stride", "padding", "dilation")
    settings = (as_tuple(getattr(layer, name), count) for name in names)
    return partial(_with_settings, settings=(*settings, layer.ceil_mode))


def _with_settings(x: Moments, settings: Any) -> Moments:
    return max_pool(x, *settings)


@moment_rule(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
def _average_pool(layer: Any) -> Rule:
    count = int(type(layer).__name__[-2])
    window = torch.Size(as_tuple(layer.kernel_size, count)).numel()
    uneven = any(as_tuple(layer.padding, count)) and not layer.count_include_pad
    if layer.ceil_mode or uneven:
        raise MomentsError(f"a network whose {type(layer).__name__} has windows of different size")
    return partial(average_pool, pool=layer, count=getattr(layer, "divisor_override", None) or window)


@moment_rule(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
def _adaptive_average(layer: Any) -> Rule:
    count = int(type(layer).__name__[-2])

    def rule(x: Moments) -> Moments:
        window = adaptive_window(x.mean, layer.output_size, count, type(layer).__name__)
        return average_pool(x, layer, torch.Size(window).numel())

    return rule


@moment_rule(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
def _adaptive_max(layer: Any) -> Rule:
    count = int(type(layer).__name__[-2])

    def rule(x: Moments) -> Moments:
        window = adaptive_window(x.mean, layer.output_size, count, type(layer).__name__)
        return max_pool(x, window, window, (0,) * count, (1,) * count)

    return rule


def adaptive_window(x: Tensor, output_size: Any, count: int, name: str) -> tuple[int, ...]:
    """The window of adaptive pooling of the last ``count`` axes of ``x``.

    Raises:
        MomentsError: when windows are of different size, or overlap.
    """
    sizes = x.shape[-count:]
    outputs = [
        size if wanted is None else wanted for size, wanted in zip(sizes, as_tuple(output_size, count), strict=True)
    ]
    if any(size % wanted for size, wanted in zip(sizes, outputs, strict=True)):
        raise MomentsError(f"a network whose {name} divides {tuple(sizes)} into windows of different size")
    return tuple(size // wanted for size, wanted in zip(sizes, outputs, strict=True))
