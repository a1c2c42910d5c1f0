"""A smaller network of plain layers with the same outputs, for one many of whose weights are 0."""

import copy
from collections import OrderedDict
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d)
# What may stand between weighted layers: it treats channels apart and makes a constant channel of a constant one.
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
    """Keeps some features of ``(batch, features)``: those that the next layer has weights for."""

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

    Three steps, until nothing changes: a unit (or channel) whose incoming weights are all 0 is a constant, which is
    folded into the next layer's bias; a unit without outgoing weights is removed, with its weights; features that a
    linear layer has no weights for are not read. Batch norm is folded into the layer before it.

    Raises:
        ValueError: when ``net`` is no chain of layers that this is known for.
    """
    chain = _chain(net)
    places = [place for place, (_, module) in enumerate(chain) if isinstance(module, WEIGHTED)]
    changed = True
    while changed:
        changed = False
        for here, there in pairwise(places):
            between = [module for _, module in chain[here + 1 : there]]
            changed |= _join(chain[here][1], between, chain[there][1])
    for place in reversed(places):
        name, layer = chain[place]
        if isinstance(layer, nn.Linear):
            read = layer.weight.ne(0).any(0)
            read[0] |= not read.any()  # no layer is left without an input
            if not read.all():
                _keep_columns(layer, read)
                chain.insert(place, (f"{name}_select", Select(read.nonzero().flatten())))
    return nn.Sequential(OrderedDict(chain)).to(memory_format=torch.channels_last)


def _chain(net: nn.Module) -> list[tuple[str, Any]]:
    """Copies of the layers of nested ``nn.Sequential`` in their order, each with a name, batch norm folded in."""
    chain: list[tuple[str, Any]] = []
    net = copy.deepcopy(net).eval()
    for path, module in net.named_modules(remove_duplicate=False):
        name = path.replace(".", "_") or "layer"
        while name in dict(chain):
            name += "_"
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            continue
        previous = chain[-1][1] if chain else None
        if isinstance(module, _BATCH_NORM) and isinstance(previous, WEIGHTED):
            fuse: Any = fuse_linear_bn_eval if isinstance(previous, nn.Linear) else fuse_conv_bn_eval
            chain[-1] = (chain[-1][0], fuse(previous, module))
        elif type(module) in (*WEIGHTED, *ELEMENTWISE, *POOLING, nn.Flatten):
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


def _check_order(chain: list[tuple[str, Any]]) -> None:
    """Refuses linear layers that would read something else than units, or whole flattened images."""
    name, layer = chain[-1]
    if not isinstance(layer, nn.Linear):
        return
    before = [module for _, module in chain[:-1]]
    last = max((place for place, module in enumerate(before) if isinstance(module, WEIGHTED)), default=None)
    if last is None:
        return
    flattened = any(isinstance(module, nn.Flatten) for module in before[last:])
    if flattened == isinstance(before[last], nn.Linear):
        wanted, kind = "no Flatten" if flattened else "a Flatten", type(before[last]).__name__
        raise ValueError(f"network must have {wanted} between {kind} and {name} to be made smaller.")


def _join(layer: Any, between: list[nn.Module], after: Any) -> bool:
    """Folds and removes what ``layer`` does not need to give to ``after``; whether anything was."""
    if getattr(layer, "groups", 1) != 1 or getattr(after, "groups", 1) != 1:
        return False
    with torch.no_grad():
        units = len(layer.weight)
        outgoing = after.weight.reshape(len(after.weight), units, -1)
        constant = ~layer.weight.flatten(1).ne(0).any(1) & outgoing.ne(0).any(2).any(0)
        value = layer.weight.new_zeros(units) if layer.bias is None else layer.bias.detach().clone()
        for module in between:
            value = module(value) if isinstance(module, ELEMENTWISE) else value
        if _bends_constants(after) or any(_bends_constants(module) for module in between):
            constant &= value == 0  # another constant would not stay one
        if constant.any():
            folded = (outgoing[:, constant].double().sum(2) * value[constant].double()).sum(1)
            bias = after.weight.new_zeros(len(folded)) if after.bias is None else after.bias
            after.bias = nn.Parameter((bias.double() + folded).to(bias.dtype))
            outgoing[:, constant] = 0
            after.weight.copy_(outgoing.view(after.weight.shape))
        used = outgoing.ne(0).any(2).any(0)
        used[0] |= not used.any()  # no layer is left without a unit
        if used.all():
            return bool(constant.any())
        layer.weight = nn.Parameter(layer.weight[used].clone())
        layer.bias = None if layer.bias is None else nn.Parameter(layer.bias[used].clone())
        if isinstance(layer, nn.Linear):
            layer.out_features = len(layer.weight)
        else:
            layer.out_channels = len(layer.weight)
        _keep_columns(after, used.repeat_interleave(after.weight.shape[1] // units))
    return True


def _keep_columns(layer: Any, kept: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight.detach()[:, kept].clone())
    if isinstance(layer, nn.Linear):
        layer.in_features = layer.weight.shape[1]
    else:
        layer.in_channels = layer.weight.shape[1]


def _bends_constants(module: Any) -> bool:
    """Whether a constant but 0 comes out as another: zeros set around it, or pooling that divides by another number."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        padded = module.padding == "same" or (not isinstance(module.padding, str) and any(module.padding))
        return padded and module.padding_mode == "zeros"
    if isinstance(module, nn.AvgPool1d | nn.AvgPool2d):
        padded = any(module.padding) if isinstance(module.padding, tuple) else module.padding > 0
        return padded or getattr(module, "divisor_override", None) is not None
    return False
