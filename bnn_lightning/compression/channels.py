"""Channels of a traced network: which tensors must have the same ones, and which of these are constant.

Tensors of one group lose or keep the same channels: what goes into an activation, norm, pooling or sum, and what comes
out of it. A group whose channels something reads that is not known here stays whole.
"""

import operator
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d)
# They do not mix channels, and map a constant channel to a constant one.
ELEMENTWISE = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Tanh,
)
POOLING = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_FUNCTIONS = (F.relu, torch.relu, F.leaky_relu, F.elu, F.gelu, F.silu, F.sigmoid, torch.sigmoid, F.softplus, F.tanh)
_METHODS = ("relu", "relu_", "sigmoid", "tanh")
_INPUTS, _OUTPUTS = "the inputs", "the outputs"

Layout = Literal["axis 1", "last axis", "flat map"]
"""Where channels are: before positions; behind all; or, of a map that was flattened, each with its positions."""


class Group:
    """Channels that several tensors share.

    Args:
        count: how many; None where it is not known.
        reason: why all of them stay, or None.
    """

    def __init__(self, count: int | None, reason: str | None = None):
        self.count, self._reason = count, reason
        self._joined: Group | None = None

    @property
    def first(self) -> "Group":
        """The group that stands for all that were joined."""
        return self if self._joined is None else self._joined.first

    @property
    def reason(self) -> str | None:
        """Why all channels stay, or None."""
        return self.first._reason

    def keep(self, reason: str) -> None:
        """Lets all channels stay."""
        self.first._reason = self.reason or reason

    def join(self, other: "Group") -> None:
        """Lets both be one, as summands are."""
        one, two = self.first, other.first
        if one is not two:
            two._joined, one._reason = one, one._reason or two._reason


class Channels:
    """The groups of a traced network, and what is constant in them.

    Args:
        traced: the network, in eval mode.
    """

    groups: dict[fx.Node, Group]
    constants: dict[fx.Node, Tensor]
    """By node, the value of each channel, nan where it varies; nodes that are not here vary everywhere."""

    def __init__(self, traced: fx.GraphModule):
        self.modules = dict(traced.named_modules())
        self.nodes = list(traced.graph.nodes)
        self.groups, self.constants = {}, {}
        self._layouts: dict[fx.Node, Layout] = {}
        called = [id(self.module(node)) for node in self.nodes if node.op == "call_module"]
        self._repeated = {module for module in called if called.count(module) > 1}
        for node in self.nodes:
            self._add(node)

    def module(self, node: fx.Node) -> Any:
        """What a node calls, or None."""
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def of_kinds(self, kinds: tuple[type[nn.Module], ...]) -> list[fx.Node]:
        """The nodes of modules of these classes."""
        return [node for node in self.nodes if type(self.module(node)) in kinds]

    def with_numbers(self) -> list[fx.Node]:
        """The nodes of modules that hold numbers for each channel of what they give."""
        kinds = (*WEIGHTED, *BATCH_NORM)
        return [node for node in self.nodes if type(self.module(node)) in kinds or is_channelwise(self.module(node))]

    def reasons(self) -> list[str]:
        """Why channels stay, beside those of inputs and outputs."""
        found = {group.reason for group in self.groups.values() if group.reason}
        return sorted(found - {_INPUTS, _OUTPUTS})

    def _add(self, node: fx.Node) -> None:
        module, before = self.module(node), next(iter(node.all_input_nodes), None)
        if node.op == "placeholder":
            self._begin(node, Group(None, _INPUTS), "axis 1")
        elif node.op == "output":
            for read in node.all_input_nodes:
                self.groups[read].keep(_OUTPUTS)
        elif before is None or (len(node.all_input_nodes) > 1 and node.target not in _SUMS):
            self._refuse(node)
        elif type(module) in WEIGHTED:
            self._add_weighted(node, module, before)
        elif type(module) in BATCH_NORM and self._normalises_each(module, before):
            self._same(node, before, lambda value: normed(module, value))
        elif is_channelwise(module) and self._treats_each(module, before):
            self._same(node, before, lambda value: module(value.view(1, -1, 1)).flatten())
        elif type(module) in ELEMENTWISE:
            self._same(node, before, module)
        elif type(module) in POOLING and self._layouts[before] == "axis 1":
            self._same(node, before, lambda value: value.where((value == 0) | (not varies_at_edges(module)), torch.nan))
        elif _flattens(node, module):
            self._same(node, before, lambda value: value)
            self._layouts[node] = "flat map" if self._layouts[before] == "axis 1" else self._layouts[before]
        elif node.target in (*_FUNCTIONS, *_METHODS) and len(node.args) == 1:
            self._same(node, before, lambda value: _called(node, value))
        elif node.target in _SUMS and len(node.all_input_nodes) == len(node.args) == 2 and not node.kwargs:
            self._sum(node, *node.all_input_nodes)
        else:
            self._refuse(node)

    def _begin(self, node: fx.Node, group: Group, layout: Layout) -> None:
        self.groups[node], self._layouts[node] = group, layout

    def _add_weighted(self, node: fx.Node, layer: Any, before: fx.Node) -> None:
        read, is_linear = self.groups[before].first, isinstance(layer, nn.Linear)
        given = Group(len(layer.weight))
        self._begin(node, given, "last axis" if is_linear else "axis 1")
        said = f"{node.target} ({type(layer).__name__})"
        inputs, layout = layer.weight.shape[1] * _groups(layer), self._layouts[before]
        if read.count is not None:
            # Behind the last axis, more inputs than channels are those of several tokens that were flattened.
            fits = inputs % read.count == 0 if layout == "flat map" else inputs == read.count
            if not fits or is_linear == (layout == "axis 1"):
                read.keep(f"{said} reads another axis")
        for why, holds in (("is used twice", id(layer) in self._repeated), ("has groups", _groups(layer) > 1)):
            if holds:
                read.keep(f"{said} {why}")
                given.keep(f"{said} {why}")
        nothing = ~layer.weight.detach().flatten(1).ne(0).any(1)
        bias = layer.weight.new_zeros(len(nothing)) if layer.bias is None else layer.bias.detach()
        self.constants[node] = bias.where(nothing, torch.nan)

    def _normalises_each(self, norm: Any, before: fx.Node) -> bool:
        fits = norm.num_features == self.groups[before].first.count and norm.running_var is not None
        return fits and id(norm) not in self._repeated

    def _treats_each(self, module: nn.Module, before: fx.Node) -> bool:
        count = self.groups[before].first.count
        fits = all(len(parameter) == count for parameter in module.parameters())
        return fits and self._layouts[before] == "axis 1" and id(module) not in self._repeated

    def _same(self, node: fx.Node, before: fx.Node, change: Callable[[Tensor], Tensor]) -> None:
        """A node whose channels are those of ``before``, of which constant ones become ``change(value)``."""
        self._begin(node, self.groups[before], self._layouts[before])
        if before in self.constants:
            value = self.constants[before]
            varies = value.isnan()
            with torch.no_grad():
                self.constants[node] = change(value.masked_fill(varies, 0)).masked_fill(varies, torch.nan)

    def _sum(self, node: fx.Node, one: fx.Node, two: fx.Node) -> None:
        first, second = self.groups[one].first, self.groups[two].first
        if first.count is None or first.count != second.count or self._layouts[one] != self._layouts[two]:
            self._refuse(node)
            return
        first.join(second)
        self._begin(node, first, self._layouts[one])
        if one in self.constants and two in self.constants:
            self.constants[node] = self.constants[one] + self.constants[two]

    def _refuse(self, node: fx.Node) -> None:
        """What reads or gives channels in a way that is not known here."""
        module, said = self.module(node), str(getattr(node.target, "__name__", node.target))
        said = said if module is None else f"{said} ({type(module).__name__})"
        for read in node.all_input_nodes:
            self.groups[read].keep(said)
        self._begin(node, Group(None, said), "axis 1")


def is_channelwise(module: nn.Module | None) -> bool:
    """Whether a module says by ``is_channelwise = True`` that it treats each channel of a map by itself.

    What it makes of one depends on that channel alone, and is constant where the channel is; its parameters are
    ``(channels,)``. Modules of users may say it, too.
    """
    return bool(getattr(module, "is_channelwise", False))


def normed(norm: Any, value: Tensor) -> Tensor:
    """What a batch norm in eval mode makes of channels that are constant, ``(channels,)``."""
    scale = (norm.running_var + norm.eps).rsqrt()
    result = (value - norm.running_mean) * scale
    return result * norm.weight + norm.bias if norm.affine else result


def varies_at_edges(module: Any) -> bool:
    """Whether a constant image can come out as another value: zero padding, or pooling with another divisor."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        padded = module.padding == "same" or (not isinstance(module.padding, str) and any(module.padding))
        return padded and module.padding_mode == "zeros"
    if isinstance(module, nn.AvgPool1d | nn.AvgPool2d):
        padded = any(module.padding) if isinstance(module.padding, tuple) else module.padding > 0
        return padded or getattr(module, "divisor_override", None) is not None
    return False


def _groups(layer: Any) -> int:
    return int(getattr(layer, "groups", 1))


def _flattens(node: fx.Node, module: Any) -> bool:
    """Whether it makes ``(batch, features)`` of whole images."""
    if type(module) is nn.Flatten:
        return (module.start_dim, module.end_dim) == (1, -1)
    return node.target in (torch.flatten, "flatten") and node.args[1:] == (1,) and not node.kwargs


def _called(node: fx.Node, value: Tensor) -> Tensor:
    """A function or method of each element, with the settings that it has at this node."""
    settings: Any = {name: setting for name, setting in node.kwargs.items() if name != "inplace"}
    call: Any = getattr(value.clone(), str(node.target)) if node.op == "call_method" else node.target
    result: Tensor = call(**settings) if node.op == "call_method" else call(value.clone(), **settings)
    return result
