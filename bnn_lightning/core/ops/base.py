"""The contract of a layer kind: its arithmetic, and how one value for each channel broadcasts over its tensors."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Op(Protocol):
    """A layer's arithmetic as a function ``op(x, weight, bias)``, with stride, padding and so on inside.

    It must be linear in x for a fixed weight, and linear in weight and bias together, so that the means of weight and
    bias give the mean of the outputs.

    Noise and its variance may differ between channels but be constant over an image. They are vectors with one value
    for each input or output channel; the four ``over_`` methods reshape them.
    """

    @property
    def in_features(self) -> int:
        """Number of input features of a linear layer, of input channels of a convolution."""
        ...

    @property
    def in_channels(self) -> int:
        """Number of input channels; of a linear layer behind a Flatten, the channels before the flattening."""
        ...

    @property
    def out_features(self) -> int:
        """Number of output features of a linear layer, of output channels of a convolution."""
        ...

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output for these weights, in the shapes of the plain layer."""
        ...

    def over_inputs(self, values: Tensor) -> Tensor:
        """``(in_features,)`` or ``(in_channels,)`` in a shape that broadcasts to the input."""
        ...

    def over_outputs(self, values: Tensor) -> Tensor:
        """``(out,)`` in a shape that broadcasts to the output."""
        ...

    def over_weights(self, values: Tensor) -> Tensor:
        """``(in_features,)`` or ``(in_channels,)`` in a shape that broadcasts to the weight, along its inputs."""
        ...

    def over_rows(self, values: Tensor) -> Tensor:
        """``(out_features,)`` in a shape that broadcasts to the weight, along its outputs."""
        ...

    def example_shape(self, x: Tensor) -> torch.Size:
        """The shape of noise that is constant over space, ``(batch, channels, 1, ...)``; x is an input or an output."""
        ...

    def layer(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """The plain layer with these values as its parameters."""
        ...


MakeOp = Callable[[Any, int | None], Op]

_KINDS: dict[type, MakeOp] = {}


def layer_kind(*kinds: type[nn.Module]) -> Callable[[MakeOp], MakeOp]:
    """A decorator for the function that creates the op of a layer: registers layers of these classes as a kind.

    The function takes the layer, and the number of channels flattened into it or None if that is not known. The layer
    must have attributes ``weight`` and ``bias``, of which the bias may be None. Derived classes that do not change the
    arithmetic belong to the kind.
    """

    def register(make_op: MakeOp) -> MakeOp:
        _KINDS.update(dict.fromkeys(kinds, make_op))
        return make_op

    return register


def layer_kinds() -> tuple[type, ...]:
    """The classes of layers that are registered as a kind."""
    return tuple(_KINDS)


# What a derived class may define without computing something else.
_HARMLESS = frozenset({"__init__", "extra_repr", "reset_parameters", "_get_name"})


def kind_of(layer: nn.Module, kinds: Iterable[type]) -> type | None:
    """The class among ``kinds`` that ``layer`` computes as: its own, or one that it derives from and does not change.

    A derived class changes the arithmetic where it overrides a method of that class, such as ``forward``; then, and
    where there is no such class, the result is None. Of a layer with parametrisations the class beneath them counts.
    """
    kinds = set(kinds)
    changed: set[str] = set()
    for kind in type(layer).__mro__:
        if kind in kinds:
            overridden = {name for name in changed if callable(getattr(kind, name, None))}
            return None if overridden - _HARMLESS else kind
        changed |= vars(kind).keys() - vars(object).keys() | vars(kind).keys() & {"__call__"}
    return None


def fan_in(init: Tensor, op: Op) -> int:
    """The number of weights that are added up in one output of ``op``, whose weight is ``init``."""
    return getattr(op, "fan_in", None) or init.numel() // op.out_features


def op_of(layer: nn.Module, channels: int | None = None) -> Op:
    """The op of a plain layer.

    Args:
        layer: of a registered kind.
        channels: number of channels that were flattened into a linear layer; None if that is not known.

    Raises:
        TypeError: when ``layer`` is of no registered kind.
    """
    kind = kind_of(layer, _KINDS)
    if kind is None:
        known = ", ".join(sorted(kind.__name__ for kind in _KINDS))
        raise TypeError(f"layer must be one of {known}, got {type(layer).__name__}.")
    return _KINDS[kind](layer, channels)


def with_values(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """``layer`` itself, with ``weight`` and ``bias`` as its new parameters."""
    layer.weight = nn.Parameter(weight)
    layer.bias = None if bias is None else nn.Parameter(bias)
    return layer
