"""Shrinks a network many of whose weights are 0: a smaller network of plain layers with the same outputs."""

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from bnn_lightning.compression.channels import (
    BATCH_NORM,
    WEIGHTED,
    Channels,
    Group,
    is_channelwise,
    varies_at_edges,
)
from bnn_lightning.core.moments.calls import QUERIES
from bnn_lightning.core.moments.in_place import AUGMENTED, Value, changes_its_input, follow_change
from bnn_lightning.core.moments.rules import MomentsError
from bnn_lightning.wording import first_line


class Select(nn.Module):
    """Selects the features of ``(batch, features)`` that the next layer has weights for.

    Args:
        indices: of these features, ``(selected,)``, int64.
    """

    indices: Tensor

    def __init__(self, indices: Tensor):
        super().__init__()
        self.register_buffer("indices", indices)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(-1, self.indices)

    def extra_repr(self) -> str:
        return f"{len(self.indices)} features"


def shrink(net: nn.Module) -> nn.Module:
    """A smaller network with the same outputs in eval mode, for a network of plain layers many of whose weights are 0.

    Batch norm behind a layer is folded into it. Then, until nothing changes: a channel (or unit) that is constant is
    folded into the biases of the layers that read it; and one that no layer has weights for is removed. Tensors that
    are summed have the same channels: one of a residual stream goes only where none of all layers that read the stream
    has weights for it, or where all summands are constant. At last, the inputs for which a linear layer has no weights
    are left out by a :class:`Select`. Where something else than these layers, batch norm, pooling, activations,
    flattening, sums and modules that say ``is_channelwise`` reads channels, or gives them, all of them stay, see
    :func:`stays`. A ``BatchNorm1d`` behind a linear layer is taken for one of ``(batch, features)``.

    Args:
        net: any network that ``torch.fx`` can trace. It is not changed.

    Returns:
        an ``nn.Sequential`` where the network is a chain of modules, else a graph.

    Raises:
        ValueError: when ``net`` cannot be traced, changes in place what it uses by another name, or all channels of it
            must stay; the sentence names why.
    """
    traced = _traced(net)
    _fold_norms(traced)
    channels = Channels(traced)
    _check(channels)
    while _fold_constants(channels) | _remove_channels(channels):
        channels = Channels(traced)
    _select_inputs(traced, channels)
    return _chain_of(traced).to(memory_format=torch.channels_last)


def stays(net: nn.Module) -> list[str]:
    """What of a network lets channels stay whole when it is shrunk: modules and functions by name, or none.

    Raises:
        ValueError: as :func:`shrink`.
    """
    traced = _traced(net)
    _fold_norms(traced)
    channels = Channels(traced)
    _check(channels)
    return channels.reasons()


class _Tracer(fx.Tracer):
    """Takes modules that treat each channel by itself as they are, and notes what is changed in place."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Value(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_channelwise(m) or super().is_leaf_module(m, module_qualified_name)


def _traced(net: nn.Module) -> fx.GraphModule:
    net = copy.deepcopy(net).eval()
    if type(net).__module__.startswith("torch.nn") and not isinstance(net, nn.Sequential):
        net = nn.Sequential(OrderedDict(layer=net))
    try:
        graph = _Tracer().trace(net)
    except Exception as error:  # whatever a network does with what stands for its inputs
        reason = first_line(error)
        raise ValueError(
            f"network must be one that torch.fx can trace to be made smaller, got an error: {reason}."
        ) from error
    try:
        _follow_changes(graph, net)
    except MomentsError as error:
        raise ValueError(
            "network must change no activation in place that it uses later by another name, or a view, got one that "
            "does; inplace=False there, or relu(x) for relu_(x), changes nothing."
        ) from error
    return fx.GraphModule(net, graph)


def _follow_changes(graph: fx.Graph, net: nn.Module) -> None:
    """Lets whatever uses a tensor behind a change in place use the result, so that nodes are what they were made."""
    numbers: set[fx.Node] = set()  # sizes and what is computed of them, which nothing changes
    for node in graph.nodes:
        if node.target in QUERIES or (node.all_input_nodes and numbers.issuperset(node.all_input_nodes)):
            numbers.add(node)
        elif changes_its_input(node, net):
            follow_change(node, net)
        node.target = AUGMENTED.get(node.target, node.target)


def _check(channels: Channels) -> None:
    """Refuses networks of which neither channels can go nor inputs of a linear layer."""
    given = [channels.groups[node] for node in channels.of_kinds(WEIGHTED)]
    selects = any(not _used_inputs(channels.module(node)).all() for node in channels.of_kinds((nn.Linear,)))
    if not selects and (reasons := channels.reasons()) and all(group.reason for group in given):
        raise ValueError(
            "network must have channels that can go to be made smaller: between linear layers and convolutions, beside "
            f"batch norm, pooling, activations, flattening and sums, got {', '.join(reasons)}."
        )


def _fold_norms(traced: fx.GraphModule) -> None:
    """Makes each batch norm behind a layer that nothing else reads a part of it."""
    channels = Channels(traced)
    for node in channels.of_kinds(BATCH_NORM):
        (before,) = node.all_input_nodes
        layer, norm = channels.module(before), channels.module(node)
        others = [other for other in channels.nodes if channels.module(other) in (layer, norm)]
        if type(layer) not in WEIGHTED or len(before.users) > 1 or len(others) > 2:
            continue
        if not norm.affine or norm.running_var is None or norm.num_features != len(layer.weight):
            continue
        fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        traced.set_submodule(str(before.target), fuse(layer, norm))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()


def _fold_constants(channels: Channels) -> bool:
    """Adds constant channels to the biases of the layers that read them; gives whether anything changed."""
    changed = False
    for node in channels.of_kinds(WEIGHTED):
        (before,) = node.all_input_nodes
        layer, group = channels.module(node), channels.groups[before]
        if group.reason is not None or before not in channels.constants:
            continue
        value = channels.constants[before]
        with torch.no_grad():
            weight = _by_channel(layer, group)
            constant = ~value.isnan() & weight.ne(0).any(2).any(0)
            if varies_at_edges(layer):
                constant &= value == 0  # other constants would differ at the edges of the image
            if not constant.any():
                continue
            changed = True
            folded = (weight[:, constant].double().sum(2) * value[constant].double()).sum(1)
            bias = layer.weight.new_zeros(len(folded)) if layer.bias is None else layer.bias
            layer.bias = nn.Parameter((bias.double() + folded).to(bias.dtype))
            weight = weight.clone()
            weight[:, constant] = 0
            layer.weight.copy_(weight.view(layer.weight.shape))
    return changed


def _remove_channels(channels: Channels) -> bool:
    """Removes what no layer has weights for; gives whether anything changed."""
    readers: dict[Group, list[Any]] = {}
    for node in channels.of_kinds(WEIGHTED):
        group = channels.groups[node.all_input_nodes[0]].first
        readers.setdefault(group, []).append(channels.module(node))
    unused = {}
    for group, layers in readers.items():
        if group.reason is None:
            used = torch.stack([_by_channel(layer, group).ne(0).any(2).any(0) for layer in layers]).any(0)
            used[0] |= not used.any()  # a layer needs at least one
            if not used.all():
                unused[group] = used
    with torch.no_grad():
        for group, used in unused.items():
            for layer in readers[group]:
                _keep_inputs(layer, used.repeat_interleave(layer.weight.shape[1] // len(used)))
        for node in channels.with_numbers():
            kept = unused.get(channels.groups[node].first)
            if kept is not None:
                _keep_outputs(channels.module(node), kept)
    return bool(unused)


def _by_channel(layer: Any, group: Group) -> Tensor:
    """The weights of a layer for each channel of what it reads, ``(outputs, channels, positions)``."""
    weight: Tensor = layer.weight.detach()
    return weight.reshape(len(weight), group.first.count or weight.shape[1], -1)


def _keep_inputs(layer: Any, kept: Tensor) -> None:
    """Removes the weights of ``layer`` for inputs where the mask ``kept`` is false."""
    layer.weight = nn.Parameter(layer.weight.detach()[:, kept].clone())
    if isinstance(layer, nn.Linear):
        layer.in_features = layer.weight.shape[1]
    else:
        layer.in_channels = layer.weight.shape[1]


def _keep_outputs(module: Any, kept: Tensor) -> None:
    """Removes the channels of a layer or norm for which the mask ``kept`` is false."""
    for name, value in list(module.named_parameters(recurse=False)):
        setattr(module, name, nn.Parameter(value.detach()[kept].clone()))
    if isinstance(module, BATCH_NORM):
        for name in ("running_mean", "running_var"):
            setattr(module, name, getattr(module, name)[kept].clone())
        module.num_features = int(kept.sum())
    elif isinstance(module, nn.Linear):
        module.out_features = len(module.weight)
    elif not is_channelwise(module):
        module.out_channels = len(module.weight)


def _select_inputs(traced: fx.GraphModule, channels: Channels) -> None:
    """Puts a :class:`Select` before each linear layer that has no weights for some of its inputs."""
    for node in channels.of_kinds((nn.Linear,)):
        layer = channels.module(node)
        used = _used_inputs(layer)
        if used.all() or sum(channels.module(other) is layer for other in channels.nodes) > 1:
            continue
        _keep_inputs(layer, used)
        name = f"{node.target}_select"
        traced.add_submodule(name, Select(used.nonzero().flatten()))
        with traced.graph.inserting_before(node):
            selected = traced.graph.call_module(name, (node.args[0],))
        node.args = (selected,)
    traced.recompile()


def _used_inputs(layer: nn.Linear) -> Tensor:
    used = layer.weight.ne(0).any(0)
    used[0] |= not used.any()  # a layer needs at least one input
    return used


def _chain_of(traced: fx.GraphModule) -> nn.Module:
    """The modules one after another, where a network is no more than that; else the graph."""
    chain: OrderedDict[str, nn.Module] = OrderedDict()
    first, *calls, output = traced.graph.nodes
    last = first
    for node in calls:
        if node.op != "call_module" or node.args != (last,) or node.kwargs or len(last.users) > 1:
            return traced
        name = str(node.target).replace(".", "_")
        while name in chain:
            name += "_"
        chain[name] = traced.get_submodule(str(node.target))
        last = node
    return nn.Sequential(chain) if output.args == (last,) else traced
