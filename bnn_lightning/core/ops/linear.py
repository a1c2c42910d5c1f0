"""Linear as an op."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_lightning.core.ops.base import layer_kind, with_values


@dataclass(frozen=True)
class LinearOp:
    """``F.linear``: inputs are ``(..., in_features)``, outputs ``(..., out_features)``."""

    in_features: int
    in_channels: int
    out_features: int

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def over_inputs(self, values: Tensor) -> Tensor:
        return values.repeat_interleave(self.in_features // len(values))

    def over_outputs(self, values: Tensor) -> Tensor:
        return values

    over_weights = over_inputs

    def over_rows(self, values: Tensor) -> Tensor:
        return values.view(-1, 1)

    def layer(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        return with_values(nn.Linear(self.in_features, len(weight), bias is not None, device="meta"), weight, bias)

    def example_shape(self, x: Tensor) -> torch.Size:
        return torch.Size((*x.shape[: min(1, x.dim() - 1)], *(1,) * (x.dim() - 2), x.shape[-1]))


@layer_kind(nn.Linear)
def _linear_op(layer: nn.Linear, channels: int | None) -> LinearOp:
    channels = channels or layer.in_features
    if layer.in_features % channels:
        raise ValueError(f"channels must divide the layer's {layer.in_features} input features, got {channels}.")
    return LinearOp(layer.in_features, channels, layer.out_features)
