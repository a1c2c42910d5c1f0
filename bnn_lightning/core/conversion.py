"""Conversion between plain and Bayesian networks: bayesianize, to_plain, and loading the weights of a plain network."""

import copy
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops import layer_kinds


def bayesianize(net: nn.Module, method: Method, only: str | Iterable[str] = "*") -> nn.Module:
    """A copy of ``net`` in which the layers whose names match ``only`` are random under ``method``.

    Layers of registered kinds can become random: Linear, Conv1d, Conv2d and those registered by
    :func:`~bnn_lightning.layer_kind`. Their values, trained or not, become the posterior means, unless the method draws
    the means itself. A layer that is used in two places stays one layer. ``net`` is not changed.

    Some methods have a noise variance for each channel that was flattened into a linear layer. The number of channels
    is known where convolution, Flatten and linear layer are in the same ``nn.Sequential``; elsewhere each input feature
    counts as a channel.

    Args:
        net: any network; ``bayesianize(resnet18(), LRT())`` works.
        method: for example ``LRT(prior_sigma=0.1)``.
        only: one pattern for layer names or several, with wildcards: ``"fc*"``, ``["conv1", "fc3"]``.

    Raises:
        ValueError: when a pattern of ``only`` matches no layer that can be random, or when two layers share a weight.
    """
    patterns = [only] if isinstance(only, str) else list(only)
    holder = nn.ModuleDict({"net": copy.deepcopy(net)})  # a parent also for `net`, which may itself be such a layer
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
    return _with_replaced_modules(
        holder, {layer: BayesianLayer(layer, method, channels.get(layer)) for layer in names if layer in chosen}
    )


def to_plain(net: nn.Module, keep: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The deterministic network at the posterior means: a copy of ``net`` in plain layers, the inverse of bayesianize.

    Args:
        net: a network with Bayesian layers.
        keep: boolean masks by the names of :func:`~bnn_lightning.random_tensors`, each of its tensor's shape; weights
            where the mask is false are 0 in the result. Tensors without a mask do not change.
    """
    holder = nn.ModuleDict({"net": copy.deepcopy(net)})
    plain_layers: dict[nn.Module, nn.Module] = {}
    for name, layer in holder["net"].named_modules():
        if isinstance(layer, BayesianLayer):
            values: list[Any] = []
            for tensor_name in ("weight", "bias"):
                posterior = getattr(layer, tensor_name)
                value = None if posterior is None else posterior.mean.detach().clone()
                mask = (keep or {}).get(f"{name}.{tensor_name}".removeprefix("."))
                values.append(value if value is None or mask is None else value * mask)
            plain_layers[layer] = layer.op.layer(*values).train(layer.training)
    return _with_replaced_modules(holder, plain_layers)


def load_plain_state_dict(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Loads the weights of the deterministic twin into ``net``, a bayesianized network, in place.

    The method of each Bayesian layer forms new posteriors from the twin's values, so create optimisers afterwards; all
    other modules take the twin's tensors unchanged.

    Args:
        net: the network to load into.
        state_dict: of the same network before :func:`bayesianize`, such as a trained one.

    Raises:
        ValueError: when names or shapes are not those of ``net`` in plain layers.
    """
    twin = to_plain(net)
    expected, given = twin.state_dict(), dict(state_dict)
    for name in sorted(expected.keys() | given.keys()):
        shapes = [list(tensors[name].shape) if name in tensors else "nothing" for tensors in (expected, given)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{name} must be {shapes[0]} as in this network, got {shapes[1]}.")
    twin.load_state_dict(given)
    twin_modules = dict(twin.named_modules())
    for name, layer in net.named_modules():
        if isinstance(layer, BayesianLayer):
            plain_layer: Any = twin_modules[name]
            layer.weight = layer.method.weight(plain_layer.weight, layer.op)
            layer.bias = None if plain_layer.bias is None else layer.method.bias(plain_layer.bias)
            del given[f"{name}.weight".removeprefix(".")]
            given.pop(f"{name}.bias".removeprefix("."), None)
    net.load_state_dict(given, strict=False)


def children_in_order(chain: nn.Module) -> list[tuple[str, nn.Module]]:
    """Names and modules of all children, a module that occurs twice also twice; ``named_children()`` gives it once."""
    return [(name, child) for name, child in chain._modules.items() if child is not None]


def _with_replaced_modules(holder: nn.ModuleDict, replacements: Mapping[Any, nn.Module]) -> nn.Module:
    """``holder["net"]`` with each module that is a key of ``replacements`` replaced by its value, in place."""
    for parent in list(holder.modules()):
        for name, child in list(parent._modules.items()):  # named_children() would skip a repeated module
            if child is not None and child in replacements:
                parent._modules[name] = replacements[child]
    return holder["net"]


def _flattened_channels(net: nn.Module) -> dict[nn.Module, int]:
    """For each linear layer behind a convolution and a Flatten in one ``nn.Sequential``, the convolution's channels."""
    channels_of: dict[nn.Module, int] = {}
    for chain in net.modules():
        # With duplicates: a layer that occurs twice follows other layers at both places.
        modules = (module for _, module in chain.named_modules(remove_duplicate=False))
        leaves = [module for module in modules if not isinstance(module, nn.Sequential)]
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
    """Raises ValueError when a layer of ``chosen`` shares a parameter with another module."""
    owners: dict[int, nn.Module] = {}
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            owner = owners.setdefault(id(parameter), module)
            if owner is not module and (owner in chosen or module in chosen):
                tied = [names.get(layer, type(layer).__name__) for layer in (owner, module)]
                raise ValueError(
                    f"{tied[0]} and {tied[1]} share a weight, which two random layers would draw twice; "
                    "use one layer in both places, or leave them out with only=."
                )
