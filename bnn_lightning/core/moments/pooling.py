"""Moment rules of pooling: averages, which are linear; and maxima, where the largest mean is."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.memory import is_channels_last
from bnn_lightning.core.moments.rules import Moments, MomentsError, Rule, moment_rule


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


def max_pool(x: Moments, pool: Callable[[Tensor], tuple[Tensor, Tensor]], axes: int) -> Moments:
    """Mean and variance of the element of each window whose mean is the largest: X_j with j = arg max m.

    The true maximum has a larger mean where several elements are within a standard deviation of it, and mostly a
    smaller variance. Clark's larger of two Gaussians (1961), in a tree, was measured too: it costs several times as
    much, and its predictive is no better (docs/uncertainty.md).

    Args:
        x: moments ``(batch, channels, ...)``.
        pool: gives the largest element of each window and its number within the last ``axes`` axes, flattened.
        axes: how many axes windows have.
    """
    mean, places = pool(x.mean)
    if is_channels_last(mean):
        of_pixels = x.variance.permute(0, 2, 3, 1).flatten(1, 2)
        variance = of_pixels.gather(1, places.permute(0, 2, 3, 1).flatten(1, 2))
        return Moments(mean, variance.unflatten(1, mean.shape[2:]).permute(0, 3, 1, 2))
    variance = x.variance.flatten(-axes).gather(-1, places.flatten(-axes))
    return Moments(mean, variance.unflatten(-1, mean.shape[-axes:]))


def as_tuple(value: Any, count: int) -> tuple[int, ...]:
    """``value`` for each of ``count`` axes, as torch's pooling reads its settings."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * count


@moment_rule(
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
)
def _max_pool(layer: Any) -> Rule:
    if layer.return_indices:
        raise MomentsError(f"a network whose {type(layer).__name__} gives indices")
    pool = copy.copy(layer)
    pool.return_indices = True
    return partial(max_pool, pool=pool, axes=int(type(layer).__name__[-2]))


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
