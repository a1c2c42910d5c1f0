"""The contract of a layer kind: its arithmetic, and how values for each channel spread over it."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Op(Protocol):
    """A layer's arithmetic, ``op(x, weight, bias)``: linear in x for a fixed weight, with the geometry inside.

    Linear in weight and bias too, so that their means give the mean of its outputs.

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
        """The shape of noise that is constant over space: ``(batch, channels, 1, ...)``; x: input or output."""
        ...

    def layer(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """The plain layer with these values."""
        ...


MakeOp = Callable[[Any, int | None], Op]

_KINDS: dict[type, MakeOp] = {}


def layer_kind(*kinds: type[nn.Module]) -> Callable[[MakeOp], MakeOp]:
    """Makes layers of exactly these classes ones that can be random; decorates the function that gives their op.

    The function takes the layer and the channels that were flattened into it, or None where that is not known. The
    layer has a ``weight``, and a ``bias`` that may be None.
    """

    def register(make_op: MakeOp) -> MakeOp:
        _KINDS.update(dict.fromkeys(kinds, make_op))
        return make_op

    return register


def layer_kinds() -> tuple[type, ...]:
    """The classes of layers that can be random. A class derived from one of them may compute something else."""
    return tuple(_KINDS)


def op_of(layer: nn.Module, channels: int | None = None) -> Op:
    """The op of a layer.

    Raises:
        TypeError: for a layer that is not exactly of one of the kinds.
    """
    if type(layer) not in _KINDS:
        known = ", ".join(sorted(kind.__name__ for kind in _KINDS))
        raise TypeError(f"layer must be one of {known}, got {type(layer).__name__}.")
    return _KINDS[type(layer)](layer, channels)


def with_values(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """``layer`` with these tensors as its parameters."""
    layer.weight = nn.Parameter(weight)
    layer.bias = None if bias is None else nn.Parameter(bias)
    return layer
