"""Conv1d and Conv2d as an op."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_lightning.core.ops.base import layer_kind, with_values


@dataclass(frozen=True)
class ConvOp:
    """``F.conv1d`` or ``F.conv2d`` with a layer's stride, padding, dilation, groups and padding mode.

    Inputs and outputs are ``(batch, channels, width)`` or ``(batch, channels, height, width)``.
    """

    in_channels: int
    out_channels: int
    dimensions: int
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    padding_mode: Any
    edges: tuple[int, ...]  # padding of each edge in the order of F.pad, for padding modes other than zeros

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self.edges, mode=self.padding_mode), (0,) * self.dimensions
        convolve = F.conv1d if self.dimensions == 1 else F.conv2d
        return convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    @property
    def in_features(self) -> int:
        return self.in_channels

    def over_inputs(self, values: Tensor) -> Tensor:
        return values.view(-1, *(1,) * self.dimensions)

    over_outputs = over_inputs

    def over_weights(self, values: Tensor) -> Tensor:
        # Each output channel has weights for the input channels of its own group only.
        rows = values.view(self.groups, -1).repeat_interleave(self.out_channels // self.groups, 0)
        return rows.view(*rows.shape, *(1,) * self.dimensions)

    def layer(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        kind = nn.Conv1d if self.dimensions == 1 else nn.Conv2d
        layer = kind(
            self.in_channels,
            self.out_channels,
            tuple(weight.shape[2:]),  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            self.groups,
            bias is not None,
            self.padding_mode,
            device="meta",
        )
        return with_values(layer, weight, bias)

    def example_shape(self, x: Tensor) -> torch.Size:
        return torch.Size((*x.shape[: -self.dimensions], *(1,) * self.dimensions))


@layer_kind(nn.Conv1d, nn.Conv2d)
def _conv_op(layer: Any, channels: int | None) -> ConvOp:
    return ConvOp(
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        dimensions=len(layer.kernel_size),
        stride=tuple(layer.stride),
        padding=layer.padding if isinstance(layer.padding, str) else tuple(layer.padding),
        dilation=tuple(layer.dilation),
        groups=layer.groups,
        padding_mode=layer.padding_mode,
        edges=tuple(layer._reversed_padding_repeated_twice),
    )
