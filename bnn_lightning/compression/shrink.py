"""Shrinks a network many of whose weights are 0: a smaller network of plain layers with the same outputs."""

import copy
from collections import OrderedDict
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d)
# Layers that may stand between weighted layers: they do not mix channels, and map a constant channel to a constant one.
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


def shrink(net: nn.Module) -> nn.Sequential:
    """A smaller network with the same outputs in eval mode, for a chain of plain layers many of whose weights are 0.

    Batch norm is folded into the layer before it. Then, until nothing changes: a unit (or channel) whose incoming
    weights are all 0 is constant, and is folded into the next layer's bias; a unit without outgoing weights is removed
    with its incoming weights. At last, the inputs for which a linear layer has no weights are left out by a
    :class:`Select`. Convolutions with groups keep all their channels.

    Args:
        net: nested ``nn.Sequential`` of Linear, Conv1d, Conv2d, batch norm, Flatten, pooling and activations. It is not
            changed.

    Raises:
        ValueError: when ``net`` is not such a chain.
    """
    chain = _folded_chain(net)
    weighted = [index for index, (_, module) in enumerate(chain) if isinstance(module, WEIGHTED)]
    changed = True
    while changed:
        changed = False
        for index, next_index in pairwise(weighted):
            between = [module for _, module in chain[index + 1 : next_index]]
            changed |= _remove_units(chain[index][1], between, chain[next_index][1])
    for index in reversed(weighted):
        name, layer = chain[index]
        if isinstance(layer, nn.Linear):
            used = layer.weight.ne(0).any(0)
            used[0] |= not used.any()  # a layer needs at least one input
            if not used.all():
                _keep_inputs(layer, used)
                chain.insert(index, (f"{name}_select", Select(used.nonzero().flatten())))
    return nn.Sequential(OrderedDict(chain)).to(memory_format=torch.channels_last)


def _folded_chain(net: nn.Module) -> list[tuple[str, Any]]:
    """Names and copies of the layers of nested ``nn.Sequential`` in their order, with batch norm folded in."""
    chain: list[tuple[str, Any]] = []
    net = copy.deepcopy(net).eval()
    for path, module in net.named_modules(remove_duplicate=False):
        name = path.replace(".", "_") or "layer"
        while name in dict(chain):
            name += "_"
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            continue
        previous = chain[-1][1] if chain else None
        if isinstance(previous, WEIGHTED) and _can_be_folded(module):
            fuse: Any = fuse_linear_bn_eval if isinstance(previous, nn.Linear) else fuse_conv_bn_eval
            chain[-1] = (chain[-1][0], fuse(previous, module))
        elif type(module) in (*WEIGHTED, *ELEMENTWISE, *POOLING) or _flattens_images(module):
            if any(module is other for _, other in chain if isinstance(module, WEIGHTED)):
                raise ValueError(f"network uses {name} in two places; a smaller one is made of chains only.")
            chain.append((name, module))
            _check_order(chain)
        else:
            raise ValueError(
                "network must be a chain (nn.Sequential) of linear layers, convolutions, pooling and activations to be "
                f"made smaller, got {type(module).__name__} at {name}."
            )
    return chain


def _can_be_folded(module: nn.Module) -> bool:
    """Whether it is a batch norm with weights and statistics of its own."""
    return isinstance(module, _BATCH_NORM) and module.affine and module.track_running_stats


def _flattens_images(module: nn.Module) -> bool:
    """Whether it makes ``(batch, features)`` of whole images."""
    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)


def _check_order(chain: list[tuple[str, Any]]) -> None:
    """Checks the last layer of ``chain``: a linear layer must read the units of another, or whole flattened images.

    Raises:
        ValueError: when it does not.
    """
    name, layer = chain[-1]
    if not isinstance(layer, nn.Linear):
        return
    before = [module for _, module in chain[:-1]]
    last = max((index for index, module in enumerate(before) if isinstance(module, WEIGHTED)), default=None)
    if last is None:
        return
    flattened = any(isinstance(module, nn.Flatten) for module in before[last:])
    if flattened == isinstance(before[last], nn.Linear):
        required, kind = "no Flatten" if flattened else "a Flatten", type(before[last]).__name__
        raise ValueError(f"network must have {required} between {kind} and {name} to be made smaller.")


def _remove_units(layer: Any, between: list[nn.Module], after: Any) -> bool:
    """Folds constant units of ``layer`` into the bias of ``after``, and removes units that ``after`` does not use.

    Args:
        layer: a weighted layer.
        between: the modules between both layers.
        after: the next weighted layer.

    Returns:
        whether anything changed.
    """
    if getattr(layer, "groups", 1) != 1 or getattr(after, "groups", 1) != 1:
        return False
    with torch.no_grad():
        units = len(layer.weight)
        outgoing = after.weight.reshape(len(after.weight), units, -1)
        constant = ~layer.weight.flatten(1).ne(0).any(1) & outgoing.ne(0).any(2).any(0)
        value = layer.weight.new_zeros(units) if layer.bias is None else layer.bias.detach().clone()
        for module in between:
            value = module(value) if isinstance(module, ELEMENTWISE) else value
        if _varies_at_edges(after) or any(_varies_at_edges(module) for module in between):
            constant &= value == 0  # other constants would differ at the edges of the image
        if constant.any():
            folded = (outgoing[:, constant].double().sum(2) * value[constant].double()).sum(1)
            bias = after.weight.new_zeros(len(folded)) if after.bias is None else after.bias
            after.bias = nn.Parameter((bias.double() + folded).to(bias.dtype))
            outgoing[:, constant] = 0
            after.weight.copy_(outgoing.view(after.weight.shape))
        used = outgoing.ne(0).any(2).any(0)
        used[0] |= not used.any()  # a layer needs at least one unit
        if used.all():
            return bool(constant.any())
        layer.weight = nn.Parameter(layer.weight[used].clone())
        layer.bias = None if layer.bias is None else nn.Parameter(layer.bias[used].clone())
        if isinstance(layer, nn.Linear):
            layer.out_features = len(layer.weight)
        else:
            layer.out_channels = len(layer.weight)
        _keep_inputs(after, used.repeat_interleave(after.weight.shape[1] // units))
    return True


def _keep_inputs(layer: Any, kept: Tensor) -> None:
    """Removes the weights of ``layer`` for inputs where the mask ``kept`` is false."""
    layer.weight = nn.Parameter(layer.weight.detach()[:, kept].clone())
    if isinstance(layer, nn.Linear):
        layer.in_features = layer.weight.shape[1]
    else:
        layer.in_channels = layer.weight.shape[1]


def _varies_at_edges(module: Any) -> bool:
    """Whether a constant image can come out as another value: zero padding, or pooling with another divisor."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        padded = module.padding == "same" or (not isinstance(module.padding, str) and any(module.padding))
        return padded and module.padding_mode == "zeros"
    if isinstance(module, nn.AvgPool1d | nn.AvgPool2d):
        padded = any(module.padding) if isinstance(module.padding, tuple) else module.padding > 0
        return padded or getattr(module, "divisor_override", None) is not None
    return False
