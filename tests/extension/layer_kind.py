"""Scale: a factor for each channel, as a layer that can be random."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnn_lightning import layer_kind, with_values


class Scale(nn.Module):
    """y = x * weight + bias, with a number for each channel of ``(batch, channels, ...)``."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return ScaleOp(len(self.weight))(x, self.weight, self.bias)


@dataclass(frozen=True)
class ScaleOp:
    """The same for weights that come from elsewhere."""

    in_features: int

    @property
    def in_channels(self) -> int:
        return self.in_features

    @property
    def out_features(self) -> int:
        return self.in_features

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        shape = (-1, *(1,) * (x.dim() - 2))
        y = x * weight.view(shape)
        return y if bias is None else y + bias.view(shape)

    def over_inputs(self, values: Tensor) -> Tensor:
        return values.view(-1, 1, 1)

    def over_outputs(self, values: Tensor) -> Tensor:
        return values.view(-1, 1, 1)

    def over_weights(self, values: Tensor) -> Tensor:
        return values

    def over_rows(self, values: Tensor) -> Tensor:
        return values

    def example_shape(self, x: Tensor) -> torch.Size:
        return torch.Size((*x.shape[:2], *(1,) * (x.dim() - 2)))

    def layer(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        return with_values(Scale(len(weight)), weight, bias)


@layer_kind(Scale)
def scale_op(layer: Scale, channels: int | None) -> ScaleOp:
    return ScaleOp(len(layer.weight))
