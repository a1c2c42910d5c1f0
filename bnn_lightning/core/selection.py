"""Which layers of a network become random: those that can, those that are named, and remarks on the others."""

import warnings
from collections.abc import Collection
from fnmatch import fnmatchcase

from torch import nn

from bnn_lightning.core.attention import is_attention
from bnn_lightning.core.drawn_layers import NORMS, can_be_drawn
from bnn_lightning.core.ops import kind_of, layer_kinds
from bnn_lightning.wording import listed

# How the names begin of what torch's layers hold, plain, parametrised or pruned. A layer of a derived class that holds
# more, such as a temperature, would lose it where it becomes random.
_NAMES = (
    *("weight", "bias", "parametrizations", "running_", "num_batches_tracked"),
    *("in_proj_", "q_proj_", "k_proj_", "v_proj_", "out_proj"),
)


def candidates(net: nn.Module) -> tuple[dict[nn.Module, str], dict[nn.Module, str]]:
    """The layers that can be random with their names, and the norm layers that can; no layer inside of another."""
    names: dict[nn.Module, str] = {}
    norms: dict[nn.Module, str] = {}
    inside: set[nn.Module] = set()
    for name, module in net.named_modules():
        is_random = module not in inside and can_be_random(module)
        if is_random:
            (norms if isinstance(module, NORMS) else names)[module] = name
        if is_random or isinstance(module, nn.MultiheadAttention):  # reads the weights of its parts
            inside |= set(module.modules())
    return names, norms


def can_be_random(layer: nn.Module) -> bool:
    """Whether ``layer`` is of a kind that can be random, and would be that alone as a random layer."""
    kind = kind_of(layer, layer_kinds())
    is_registered = kind is not None and not kind.__module__.startswith("torch.nn.")
    is_whole = is_registered or all(
        name.startswith(_NAMES) for name in (*layer._parameters, *layer._buffers, *layer._modules)
    )
    is_real = not any(parameter.is_complex() for parameter in layer.parameters())
    return (kind is not None or is_attention(layer) or can_be_drawn(layer)) and is_whole and is_real


def chosen_layers(names: dict[nn.Module, str], norms: dict[nn.Module, str], patterns: list[str]) -> list[nn.Module]:
    """The layers that ``patterns`` choose.

    Raises:
        ValueError: when a pattern matches no layer.
    """
    chosen = dict.fromkeys(names) if patterns and patterns[0].startswith("!") else {}
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        named = names if wanted == pattern else names | norms
        matching = [layer for layer, name in named.items() if fnmatchcase(name, wanted)]
        matching += [layer for layer in (*names, *norms) if wanted in _class_names(layer)]
        if not matching:
            raise ValueError(
                f"only must name layers that can be random, {', '.join(names.values()) or 'of which there are none'}, "
                f"got {pattern}."
            )
        for layer in matching:
            chosen.pop(layer, None)
            if wanted == pattern:
                chosen[layer] = None
    return [layer for layer in (*names, *norms) if layer in chosen]


def _class_names(layer: nn.Module) -> set[str]:
    """Of its own class and of those that it derives from, as a layer with weight norm does from Linear."""
    return {kind.__name__ for kind in type(layer).__mro__} - {kind.__name__ for kind in nn.Module.__mro__}


def random_layer_names(net: nn.Module) -> list[str]:
    """Names of the layers of ``net`` that can be random, norm layers last."""
    names, norms = candidates(net)
    return [*names.values(), *norms.values()]


def lazy_layers(net: nn.Module) -> list[str]:
    """Names of the layers of ``net`` that take their sizes from the first batch, which has not come yet."""
    return [name for name, module in net.named_modules() if isinstance(module, nn.modules.lazy.LazyModuleMixin)]


def refuse_tied_weights(net: nn.Module, chosen: Collection[nn.Module], names: dict[nn.Module, str]) -> None:
    """Raises ValueError when a layer of ``chosen`` shares a parameter with another module."""
    owners: dict[int, nn.Module] = {}
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            owner = owners.setdefault(id(parameter), module)
            if owner is not module and (owner in chosen or module in chosen):
                tied = [names.get(layer, type(layer).__name__) for layer in (owner, module)]
                raise ValueError(
                    f"net must have a weight for each random layer, got {tied[0]} and {tied[1]}, which share one; "
                    "use one layer in both places, or leave them out with only=."
                )


def warn_of_asked_classes(net: nn.Module, kinds: set[str]) -> None:
    """Warns of forward passes that ask for the class of a layer: random layers are of another one."""
    for kind in dict.fromkeys(map(type, net.modules())):
        code = getattr(getattr(kind, "forward", None), "__code__", None)
        if code is not None and "isinstance" in code.co_names and kind.__module__.partition(".")[0] != "torch":
            for asked in sorted(kinds & set(code.co_names)):
                warnings.warn(
                    f"{kind.__name__}.forward asks isinstance of {asked}, which its random layers are not: it may "
                    "compute something else now; tell layers apart by something else than their class.",
                    stacklevel=3,
                )


def warn_of_others(net: nn.Module, known: set[nn.Module]) -> None:
    """Warns of layers with weights, tensors of two axes or more, that are of no kind that can be random."""
    others = []
    for name, module in net.named_modules():
        own = [] if module in known else [value for value in module.parameters(recurse=False) if value.dim() > 1]
        if own:
            size = sum(value.numel() for value in own)
            others.append(f"{name or 'the network itself'} ({type(module).__name__}, {size:,})")
    if others:
        warnings.warn(
            f"these weights are of no layer that can be random and stay deterministic: {listed(others)}.",
            stacklevel=3,
        )
