"""The contract of a layer kind: its arithmetic, and how values for each channel spread over it."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Op(Protocol):
    """A layer's arithmetic, ``op(x, weight, bias)``: linear in x for a fixed weight, with the geometry inside.

    What differs between channels but is the same all over an image (noise, its variance) is a vector over inputs or
    outputs; the three ``over_`` functions spread it.
    """

    @property
    def in_features(self) -> int:
        """Features of a linear layer's input, channels of a convolution's."""
        ...

    @property
    def in_channels(self) -> int:
        """The same, but for a linear layer behind a flattening the channels that were flattened."""
        ...

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor: ...

    def over_inputs(self, values: Tensor) -> Tensor:
        """``(in_features,)`` or ``(in_channels,)`` in a shape that broadcasts to x."""
        ...

    def over_outputs(self, values: Tensor) -> Tensor:
        """``(out,)`` in a shape that broadcasts to what ``op`` gives."""
        ...

    def over_weights(self, values: Tensor) -> Tensor:
        """The same in a shape that broadcasts to the weight."""
        ...

    def example_shape(self, x: Tensor) -> torch.Size:
        """The shape of one number for each example and channel of x (an input or an output): 1 along all other axes."""
        ...


def with_values(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """``layer`` with these tensors as its parameters."""
    layer.weight = nn.Parameter(weight)
    layer.bias = None if bias is None else nn.Parameter(bias)
    return layer
