"""The one Bayesian layer, and the functions over whole networks: bayesianize, kl, sampling."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_lightning.methods.base import Method, Op


@dataclass(frozen=True)
class LinearOp:
    """``F.linear``."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)


@dataclass(frozen=True)
class ConvOp:
    """``F.conv1d`` or ``F.conv2d`` with a layer's stride, padding, dilation, groups and padding mode."""

    dimensions: int
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str
    edges: tuple[int, ...]  # how much each edge grows, in the order of F.pad; used by modes other than zeros

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self.edges, mode=self.padding_mode), (0,) * self.dimensions
        convolve = F.conv1d if self.dimensions == 1 else F.conv2d
        return convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)


def _conv_op(layer: Any) -> ConvOp:
    return ConvOp(
        dimensions=len(layer.kernel_size),
        stride=tuple(layer.stride),
        padding=layer.padding if isinstance(layer.padding, str) else tuple(layer.padding),
        dilation=tuple(layer.dilation),
        groups=layer.groups,
        padding_mode=layer.padding_mode,
        edges=tuple(layer._reversed_padding_repeated_twice),
    )


# A new layer kind is one more line here.
OPS: dict[type, Callable[[Any], Op]] = {nn.Linear: lambda layer: LinearOp(), nn.Conv1d: _conv_op, nn.Conv2d: _conv_op}


class BayesianLayer(nn.Module):
    """A plain layer whose weight and bias are random under a method: the only Bayesian layer class there is.

    ``BayesianLayer(nn.Conv2d(3, 16, 5), LRT())``. ``weight`` and ``bias`` are posteriors, so parameters are named
    ``weight.mu``, ``weight.rho``, ``bias.mu`` and so on.

    ``sampling`` decides whether a forward pass draws noise (the default) or uses the mean weights. It has nothing to do
    with ``train()`` and ``eval()``, which belong to batch norm and dropout; set it for a network with :func:`sampling`.

    Raises:
        TypeError: for a layer that is not exactly Linear, Conv1d or Conv2d.
    """

    def __init__(self, layer: Any, method: Method):
        super().__init__()
        if type(layer) not in OPS:
            known = ", ".join(kind.__name__ for kind in OPS)
            raise TypeError(f"layer must be one of {known}, got {type(layer).__name__}.")
        self.method = method
        self.op = OPS[type(layer)](layer)
        self.weight = method.weight(layer.weight)
        self.bias = None if layer.bias is None else method.bias(layer.bias)
        self.sampling = True
        self.train(layer.training)
        self._plain = f"{type(layer).__name__}({layer.extra_repr()})"

    def forward(self, x: Tensor) -> Tensor:
        if self.sampling:
            return self.method.forward(self.op, x, self.weight, self.bias)
        return self.op(x, self.weight.mean, None if self.bias is None else self.bias.mean)

    def extra_repr(self) -> str:
        return f"{self._plain}, {self.method}"


def bayesianize(net: nn.Module, method: Method, only: str | Iterable[str] = "*") -> nn.Module:
    """A copy of ``net`` in which the Linear, Conv1d and Conv2d layers named like ``only`` are random under ``method``.

    The layers' values, trained or not, become the posterior means (unless the method draws its own). A layer that is
    used in two places stays one layer. ``net`` itself is not touched.

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
        if type(module) in OPS:
            names[module] = name.removeprefix("net").removeprefix(".")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names.values()):
            raise ValueError(
                f"only={pattern!r} names no layer that can be random; this network has: "
                f"{', '.join(names.values()) or 'no Linear, Conv1d or Conv2d layer'}."
            )
    chosen = {layer for layer, name in names.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}
    _refuse_tied_weights(holder, chosen, names)
    made = {layer: BayesianLayer(layer, method) for layer in names if layer in chosen}
    for parent in list(holder.modules()):
        for name, child in list(parent._modules.items()):  # named_children() would skip a layer's second place
            if child in made:
                parent._modules[name] = made[child]
    return holder["net"]


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


def posteriors(net: nn.Module) -> Iterator[tuple[str, Any]]:
    """The random tensors of ``net`` with their names, such as ``("conv1.weight", Gaussian(...))``; each once."""
    for name, module in net.named_modules():
        if isinstance(module, BayesianLayer):
            for part in ("weight", "bias"):
                if getattr(module, part) is not None:
                    yield f"{name}.{part}".removeprefix("."), getattr(module, part)


def kl(net: nn.Module) -> Tensor:
    """KL(posterior || prior) in nats, summed over every random tensor of ``net``, however deeply nested.

    A scalar of at least float32, computed from the current parameters: it needs no forward pass before it. Zero for a
    deterministic network.
    """
    terms = [posterior.kl() for _, posterior in posteriors(net)]
    if terms:
        return torch.stack(terms).sum()
    parameter = next(net.parameters(), None)
    return torch.zeros((), device=None if parameter is None else parameter.device)


@contextmanager
def sampling(net: nn.Module, enabled: bool) -> Iterator[nn.Module]:
    """Inside the ``with``, forward passes of ``net`` draw noise (True) or use the mean weights (False).

    On exit every layer is as it was before, also after an exception.
    """
    layers = [module for module in net.modules() if isinstance(module, BayesianLayer)]
    before = [layer.sampling for layer in layers]
    try:
        for layer in layers:
            layer.sampling = enabled
        yield net
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.sampling = was
