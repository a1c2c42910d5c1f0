"""Plain networks made Bayesian, and back: bayesianize, its inverse, and the deterministic twin's weights."""

import copy
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops import layer_kinds


def bayesianize(net: nn.Module, method: Method, only: str | Iterable[str] = "*") -> nn.Module:
    """A copy of ``net`` in which the layers named like ``only`` are random under ``method``.

    Layers of the known kinds can be: Linear, Conv1d, Conv2d and those that :func:`layer_kind` was told of. Their
    values, trained or not, become the posterior means (unless the method draws its own). A layer that is used in two
    places stays one layer. ``net`` itself is not touched. The channels that are flattened into a linear
    layer are found where convolution, Flatten and linear layer stand in one ``nn.Sequential``.

    Args:
        net: any network; ``bayesianize(resnet18(), LRT())`` works.
        method: for example ``LRT(prior_sigma=0.1)``.
        only: a pattern over layer names, or several: ``"fc*"``, ``["conv1", "fc3"]``.

    Raises:
        ValueError: when ``only`` names no such layer, or when a weight is tied between two layers.
    """
    patterns = [only] if isinstance(only, str) else list(only)
    holder = nn.ModuleDict({"net": copy.deepcopy(net)})  # so that `net` itself may be such a layer
    names: dict[nn.Module, str] = {}
    for name, module in holder.named_modules():
        if type(module) in layer_kinds():
            names[module] = name.removeprefix("net").removeprefix(".")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names.values()):
            raise ValueError(
                f"only={pattern!r} names no layer that can be random; this network has: "
                f"{', '.join(names.values()) or 'no layer of a kind that can be'}."
            )
    chosen = {layer for layer, name in names.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}
    _refuse_tied_weights(holder, chosen, names)
    channels = _flattened_channels(holder)
    return _replaced(
        holder, {layer: BayesianLayer(layer, method, channels.get(layer)) for layer in names if layer in chosen}
    )


def to_plain(net: nn.Module, keep: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The deterministic network at the mean weights: a copy of ``net`` in plain layers, the inverse of bayesianize.

    Args:
        net: a network with random layers.
        keep: for the names of :func:`random_tensors` a mask over the tensor; where it is false the result has a 0.
    """
    holder = nn.ModuleDict({"net": copy.deepcopy(net)})
    made: dict[nn.Module, nn.Module] = {}
    for name, layer in holder["net"].named_modules():
        if isinstance(layer, BayesianLayer):
            values: list[Any] = []
            for part in ("weight", "bias"):
                posterior = getattr(layer, part)
                value = None if posterior is None else posterior.mean.detach().clone()
                mask = (keep or {}).get(f"{name}.{part}".removeprefix("."))
                values.append(value if value is None or mask is None else value * mask)
            made[layer] = layer.op.layer(*values).train(layer.training)
    return _replaced(holder, made)


def load_plain_state_dict(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Starts ``net``, a bayesianized network, from the weights of its deterministic twin, in place.

    Each random layer is made anew by its method from the twin's values; all others take them as they are.

    Raises:
        ValueError: when the twin's tensors are not those of ``net``.
    """
    twin = to_plain(net)
    expected, given = twin.state_dict(), dict(state_dict)
    for name in sorted(expected.keys() | given.keys()):
        sizes = [list(tensors[name].shape) if name in tensors else "nothing" for tensors in (expected, given)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"{name} must be {sizes[0]} as in this network, got {sizes[1]}.")
    twin.load_state_dict(given)
    layers = dict(twin.named_modules())
    for name, layer in net.named_modules():
        if isinstance(layer, BayesianLayer):
            values: Any = layers[name]
            layer.weight = layer.method.weight(values.weight, layer.op)
            layer.bias = None if values.bias is None else layer.method.bias(values.bias)
            del given[f"{name}.weight".removeprefix(".")]
            given.pop(f"{name}.bias".removeprefix("."), None)
    net.load_state_dict(given, strict=False)


def _replaced(holder: nn.ModuleDict, made: Mapping[Any, nn.Module]) -> nn.Module:
    for parent in list(holder.modules()):
        for name, child in list(parent._modules.items()):  # named_children() would skip a layer's second place
            if child is not None and child in made:
                parent._modules[name] = made[child]
    return holder["net"]


def _flattened_channels(net: nn.Module) -> dict[nn.Module, int]:
    """The channels that are flattened into a linear layer, for each chain in which convolution and layer both stand."""
    channels_of: dict[nn.Module, int] = {}
    for chain in net.modules():
        # A layer that stands in two places is met in both.
        every = (module for _, module in chain.named_modules(remove_duplicate=False))
        leaves = [module for module in every if not isinstance(module, nn.Sequential)]
        if not isinstance(chain, nn.Sequential) or any(list(leaf.children()) for leaf in leaves):
            continue
        channels = flattened = None
        for leaf in leaves:
            if isinstance(leaf, nn.Conv1d | nn.Conv2d):
                channels = leaf.out_channels
            elif isinstance(leaf, nn.Flatten):
                flattened = channels
            elif isinstance(leaf, nn.Linear):
                if flattened and leaf.in_features % flattened == 0:
                    channels_of[leaf] = flattened
                channels = flattened = None
    return channels_of


def _refuse_tied_weights(net: nn.Module, chosen: set[nn.Module], names: dict[nn.Module, str]) -> None:
    owners: dict[int, nn.Module] = {}
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            other = owners.setdefault(id(parameter), module)
            if other is not module and (other in chosen or module in chosen):
                tied = [names.get(layer, type(layer).__name__) for layer in (other, module)]
                raise ValueError(
                    f"{tied[0]} and {tied[1]} share a weight, which two random layers would draw twice; "
                    "use one layer in both places, or leave them out with only=."
                )


def in_order(chain: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a chain with their names; named_children() would skip the second place of one that stands in two."""
    return [(name, part) for name, part in chain._modules.items() if part is not None]
