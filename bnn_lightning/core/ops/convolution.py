"""Convolutions of one to three dimensions, and transposed ones, as an op."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_lightning.core.ops.base import layer_kind, with_values

_CONVOLVE: Any = (F.conv1d, F.conv2d, F.conv3d)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONVOLVE_TRANSPOSED: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_TRANSPOSED_LAYERS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class ConvOp:
    """``F.conv1d``, ``F.conv2d`` or ``F.conv3d`` with a layer's stride, padding, dilation, groups and padding mode.

    Inputs and outputs are ``(batch, channels, width)``, ``(batch, channels, height, width)`` or ``(batch, channels,
    depth, height, width)``.
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
        convolve = _CONVOLVE[self.dimensions - 1]
        return convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    @property
    def in_features(self) -> int:
        return self.in_channels

    @property
    def out_features(self) -> int:
        return self.out_channels

    def over_inputs(self, values: Tensor) -> Tensor:
        return values.view(-1, *(1,) * self.dimensions)

    over_outputs = over_inputs

    def over_weights(self, values: Tensor) -> Tensor:
        return self._across_groups(values, self.out_channels)

    def over_rows(self, values: Tensor) -> Tensor:
        return values.view(-1, 1, *(1,) * self.dimensions)

    def _across_groups(self, values: Tensor, rows: int) -> Tensor:
        """Each of the weight's ``rows`` has weights for the channels of its own group only."""
        table = values.view(self.groups, -1).repeat_interleave(rows // self.groups, 0)
        return table.view(*table.shape, *(1,) * self.dimensions)

    def layer(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        return self._layer(_LAYERS, weight, bias)

    def _layer(self, kinds: Any, weight: Tensor, bias: Tensor | None, **settings: Any) -> nn.Module:
        layer = kinds[self.dimensions - 1](
            self.in_channels,
            self.out_channels,
            tuple(weight.shape[2:]),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            bias=bias is not None,
            padding_mode=self.padding_mode,
            device="meta",
            **settings,
        )
        return with_values(layer, weight, bias)

    def example_shape(self, x: Tensor) -> torch.Size:
        return torch.Size((*x.shape[: -self.dimensions], *(1,) * self.dimensions))


@dataclass(frozen=True)
class TransposedConvOp(ConvOp):
    """``F.conv_transpose1d``, ``2d`` or ``3d``; the weight is ``(in_channels, out_channels / groups, ...)``."""

    output_padding: tuple[int, ...] = ()

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolve = _CONVOLVE_TRANSPOSED[self.dimensions - 1]
        return convolve(x, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation)

    def for_output_size(self, x: Tensor, output_size: Sequence[int], kernel_size: Sequence[int]) -> Self:
        """The op whose outputs have this size in space, of the several that the stride allows.

        Raises:
            ValueError: when the stride does not allow it.
        """
        wanted = tuple(output_size)[-self.dimensions :]
        padding: Any = self.padding
        settings = zip(x.shape[-self.dimensions :], self.stride, padding, self.dilation, kernel_size, strict=True)
        smallest = [
            (size - 1) * stride - 2 * pad + dilation * (kernel - 1) + 1
            for size, stride, pad, dilation, kernel in settings
        ]
        added = tuple(size - least for size, least in zip(wanted, smallest, strict=True))
        if not all(
            0 <= more < max(steps)
            for more, steps in zip(added, zip(self.stride, self.dilation, strict=True), strict=True)
        ):
            raise ValueError(f"output_size must be {smallest} or less than a stride more, got {list(wanted)}.")
        return replace(self, output_padding=added)

    def over_weights(self, values: Tensor) -> Tensor:
        return values.view(-1, 1, *(1,) * self.dimensions)

    def over_rows(self, values: Tensor) -> Tensor:
        return self._across_groups(values, self.in_channels)

    def layer(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        return self._layer(_TRANSPOSED_LAYERS, weight, bias, output_padding=self.output_padding)


def _settings(layer: Any) -> dict[str, Any]:
    return {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "dimensions": len(layer.kernel_size),
        "stride": tuple(layer.stride),
        "padding": layer.padding if isinstance(layer.padding, str) else tuple(layer.padding),
        "dilation": tuple(layer.dilation),
        "groups": layer.groups,
        "padding_mode": layer.padding_mode,
        "edges": tuple(layer._reversed_padding_repeated_twice),
    }


@layer_kind(*_LAYERS)
def _conv_op(layer: Any, channels: int | None) -> ConvOp:
    return ConvOp(**_settings(layer))


@layer_kind(*_TRANSPOSED_LAYERS)
def _transposed_conv_op(layer: Any, channels: int | None) -> TransposedConvOp:
    return TransposedConvOp(**_settings(layer), output_padding=tuple(layer.output_padding))
