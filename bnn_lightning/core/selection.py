"""Which layers of a network become random: those that can, those that are named, and remarks on the others."""

import warnings
from collections.abc import Collection
from fnmatch import fnmatchcase

from torch import nn

from bnn_lightning.core.attention import is_attention
from bnn_lightning.core.drawn_layers import NORMS, can_be_drawn
from bnn_lightning.core.ops import kind_of, layer_kinds
from bnn_lightning.wording import listed


def candidates(net: nn.Module) -> tuple[dict[nn.Module, str], dict[nn.Module, str]]:
    """The layers that can be random with their names, and the norm layers that can; no layer inside of another."""
    names: dict[nn.Module, str] = {}
    norms: dict[nn.Module, str] = {}
    inside: set[nn.Module] = set()
    for name, module in net.named_modules():
        if module not in inside and can_be_random(module):
            (norms if isinstance(module, NORMS) else names)[module] = name
            inside |= set(module.modules())
    return names, norms


def can_be_random(layer: nn.Module) -> bool:
    """Whether ``layer`` is of a kind that can be random."""
    return kind_of(layer, layer_kinds()) is not None or is_attention(layer) or can_be_drawn(layer)


def chosen_layers(names: dict[nn.Module, str], norms: dict[nn.Module, str], patterns: list[str]) -> list[nn.Module]:
    """The layers that ``patterns`` choose.

    Raises:
        ValueError: when a pattern matches no layer.
    """
    chosen = dict.fromkeys(names) if patterns and patterns[0].startswith("!") else {}
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        matching = [layer for layer, name in names.items() if fnmatchcase(name, wanted)]
        matching += [layer for layer in (*names, *norms) if type(layer).__name__ == wanted]
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


def random_layer_names(net: nn.Module) -> list[str]:
    """Names of the layers of ``net`` that can be random, without norm layers."""
    return list(candidates(net)[0].values())


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
