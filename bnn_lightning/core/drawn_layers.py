"""DrawnLayer, for layers that are not linear in their weights, or whose inputs are no numbers: LSTM, Embedding, ...

One draw of the weights serves a forward pass under every method: the whole batch, and all steps of a sequence. So under
LRT and Flipout too these layers are those of Bayes by backprop, whose gradients have the same expectation and a larger
variance; under dropout one mask of the inputs serves the batch, as in Gal & Ghahramani 2016 (arXiv:1512.05287).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from bnn_lightning.core.layers import RandomLayer, without_hooks
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops import kind_of
from bnn_lightning.core.posteriors import Posterior, sample_together

# What WeightShape says of the weights of each kind: their axes of inputs and of outputs, and the fan-in.
_AXES: dict[type, tuple[int, int, int | None]] = {
    **dict.fromkeys((nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell, nn.Bilinear), (1, 0, None)),
    nn.Embedding: (0, 1, 1),  # of all words one gives the output
}
NORMS: tuple[type, ...] = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.RMSNorm,
)
"""Layers whose scales and shifts can be random; a weight of theirs has no inputs."""


def can_be_drawn(layer: nn.Module) -> bool:
    """Whether ``layer`` has tensors and is of a kind that :class:`DrawnLayer` takes."""
    if isinstance(layer, nn.Embedding) and (
        layer.max_norm is not None or layer.sparse or layer.padding_idx is not None
    ):
        # One changes its weights in place, one has gradients that a sum with KL's cannot take, and padding is no word:
        # its row is a constant.
        return False
    has_tensors = any(True for _ in layer.parameters(recurse=False)) or parametrize.is_parametrized(layer)
    return kind_of(layer, (*_AXES, *NORMS)) is not None and has_tensors


@dataclass(frozen=True)
class WeightShape:
    """The part of an :class:`~bnn_lightning.Op` that a method needs to form the posterior of a weight.

    Args:
        shape: of the weight.
        inputs: its axis of inputs.
        outputs: its axis of outputs.
        fan_in: the number of weights that are added up in one output; None for all that belong to it.
    """

    shape: tuple[int, ...]
    inputs: int
    outputs: int
    fan_in: int | None

    @property
    def in_features(self) -> int:
        return self.shape[self.inputs]

    in_channels = in_features

    @property
    def out_features(self) -> int:
        return self.shape[self.outputs]

    def over_weights(self, values: Tensor) -> Tensor:
        return values.view([-1 if axis == self.inputs else 1 for axis in range(len(self.shape))])

    def over_rows(self, values: Tensor) -> Tensor:
        return values.view([-1 if axis == self.outputs else 1 for axis in range(len(self.shape))])


class DrawnLayer(RandomLayer):
    """A layer all of whose own tensors are drawn once a forward pass; inputs and outputs are those of the plain layer.

    Args:
        layer: RNN, LSTM, GRU or their cells, Embedding, Bilinear, or a layer of :data:`NORMS`.
        method: how the tensors are random.

    Raises:
        TypeError: when ``layer`` is of another kind.
    """

    def __init__(self, layer: nn.Module, method: Method):
        if not can_be_drawn(layer):
            raise TypeError(f"layer must be of a kind whose weights can be drawn, got {type(layer).__name__}.")
        super().__init__(layer, method, dict(layer.named_parameters(recurse=False)))
        self._axes = _AXES.get(kind_of(layer, (*_AXES, *NORMS)) or type(layer))
        # In a tuple, so that it is no part of this module: it lends its arithmetic and its settings.
        self._skeleton = (_without_values(layer),)
        for name, buffer in layer.named_buffers(recurse=False):
            self.register_buffer(name, buffer, persistent=name not in layer._non_persistent_buffers_set)
        self.start_from(layer)

    @property
    def examples_are_independent(self) -> bool:
        return False

    def posterior_of(self, name: str, value: Tensor) -> Posterior:
        if "bias" in name:
            return self.method.bias(value)
        if self._axes is None:
            return self.method.scale(value)
        op: Any = WeightShape(tuple(value.shape), *self._axes)
        return self.method.weight(value, op)

    def plain(self, values: Mapping[str, Tensor]) -> nn.Module:
        layer = copy.deepcopy(self._skeleton[0])
        for name, value in values.items():
            setattr(layer, name, nn.Parameter(value))
        layer._buffers.update(copy.deepcopy(self._buffers))
        return layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        tensors = self.tensors()
        drawn = sample_together(tensors.values()) if self.sampling else [part.mean for part in tensors.values()]
        values = dict(zip(tensors, drawn, strict=True))
        layer = self._skeleton[0].train(self.training)
        return functional_call(layer, values | dict(self.named_buffers(recurse=False)), args, kwargs)


def _without_values(layer: nn.Module) -> nn.Module:
    """A copy of ``layer`` whose parameters and buffers take no memory."""
    tensors = [*layer.parameters(), *layer.buffers()]
    memo: dict[int, Any] = {id(tensor): _empty_like(tensor) for tensor in tensors}
    return copy.deepcopy(without_hooks(layer), memo)  # the random layer has its hooks


def _empty_like(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
