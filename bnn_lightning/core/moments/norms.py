"""Moment rules of norm layers in eval mode: batch norm, which is linear, and norms by statistics of the input."""

from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.core.moments.rules import Moments, MomentsError, Rule, moment_rule


class ChannelAffine(nn.Module):
    """y = scale x + shift for each channel, axis 1: exact. A layer before it can take it into its weights.

    Args:
        scale: ``(channels,)``.
        shift: ``(channels,)``.
    """

    scale: Tensor
    shift: Tensor
    squared: Tensor

    def __init__(self, scale: Tensor, shift: Tensor):
        super().__init__()
        for name, value in (("scale", scale), ("shift", shift), ("squared", scale.square())):
            self.register_buffer(name, value.detach().clone(), persistent=False)

    def forward(self, x: Moments) -> Moments:
        shape = (-1, *(1,) * (x.mean.dim() - 2))
        scale, shift, squared = (value.view(shape) for value in (self.scale, self.shift, self.squared))
        return Moments(x.mean * scale + shift, x.variance * squared)


def normalised(x: Moments, dims: tuple[int, ...], eps: float, centred: bool) -> Moments:
    """(X - M) / sqrt(P + eps) with M, the mean over ``dims`` or 0, and P, the mean of (X - M)^2, at their expectations.

    E[P] is the mean over ``dims`` of (m - E[M])^2 + v, less the variance of M, which is below v over the number of
    elements and left out. M and P are means over many elements and vary little: their noise is ignored.
    """
    mean = x.mean - x.mean.mean(dims, keepdim=True) if centred else x.mean
    scale = (torch.addcmul(x.variance, mean, mean).mean(dims, keepdim=True) + eps).rsqrt()
    return Moments(mean * scale, x.variance * scale.square())


class InputNorm(nn.Module):
    """weight * :func:`normalised` + bias, over groups of channels or over the last axes.

    Args:
        layer: with ``weight`` and ``bias``, each of which may be None, or of which it may have none.
        eps: of the layer.
        groups: of channels, axis 1, each normalised with all that follows; None normalises the last axes.
        axes: how many last axes; those of the weight.
        centred: whether the mean is taken off.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: Any, eps: float | None, groups: int | None, axes: int = 0, centred: bool = True):
        super().__init__()
        self.eps, self.groups, self.axes, self.centred = eps, groups, axes, centred
        for name in ("weight", "bias"):
            value = getattr(layer, name, None)
            self.register_buffer(name, None if value is None else value.detach().clone(), persistent=False)

    def forward(self, x: Moments) -> Moments:
        eps = torch.finfo(x.mean.dtype).eps if self.eps is None else self.eps
        weight, bias = self.weight, self.bias
        if self.groups is None:
            mean, variance = normalised(x, tuple(range(-self.axes, 0)), eps, self.centred)
        else:
            grouped = Moments(x.mean.unflatten(1, (self.groups, -1)), x.variance.unflatten(1, (self.groups, -1)))
            dims = tuple(range(2, x.mean.dim() + 1))
            mean, variance = (part.flatten(1, 2) for part in normalised(grouped, dims, eps, self.centred))
            over_channels = (-1, *(1,) * (x.mean.dim() - 2))
            weight = None if weight is None else weight.view(over_channels)
            bias = None if bias is None else bias.view(over_channels)
        if weight is not None:
            mean, variance = mean * weight, variance * weight.square()
        return Moments(mean if bias is None else mean + bias, variance)


@moment_rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
def _batch_norm(layer: Any) -> Rule:
    if layer.running_var is None:
        raise MomentsError(f"a network whose {type(layer).__name__} keeps no running statistics")
    scale = (layer.running_var + layer.eps).rsqrt()
    shift = -layer.running_mean * scale
    if layer.affine:
        scale, shift = scale * layer.weight, shift * layer.weight + layer.bias
    return ChannelAffine(scale, shift)


@moment_rule(nn.LayerNorm)
def _layer_norm(layer: nn.LayerNorm) -> Rule:
    return InputNorm(layer, layer.eps, None, len(layer.normalized_shape))


@moment_rule(nn.RMSNorm)
def _rms_norm(layer: nn.RMSNorm) -> Rule:
    return InputNorm(layer, layer.eps, None, len(layer.normalized_shape), centred=False)


@moment_rule(nn.GroupNorm)
def _group_norm(layer: nn.GroupNorm) -> Rule:
    return InputNorm(layer, layer.eps, layer.num_groups)


@moment_rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def _instance_norm(layer: Any) -> Rule:
    return _batch_norm(layer) if layer.track_running_stats else InputNorm(layer, layer.eps, layer.num_features)
