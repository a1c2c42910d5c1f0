"""The one Bayesian layer, and the functions over whole networks: bayesianize, kl, sampling."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_lightning.compiling import compiling
from bnn_lightning.methods import Method, Op
from bnn_lightning.methods.local import with_noise
from bnn_lightning.posteriors import Gaussian


@dataclass(frozen=True)
class LinearOp:
    """``F.linear``."""

    in_features: int
    in_channels: int

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def over_inputs(self, values: Tensor) -> Tensor:
        return values.repeat_interleave(self.in_features // len(values))

    def over_outputs(self, values: Tensor) -> Tensor:
        return values

    over_weights = over_inputs

    def plain(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        return _with_values(nn.Linear(self.in_features, len(weight), bias is not None, device="meta"), weight, bias)

    def example_shape(self, x: Tensor) -> torch.Size:
        return torch.Size((*x.shape[: min(1, x.dim() - 1)], *(1,) * (x.dim() - 2), x.shape[-1]))


@dataclass(frozen=True)
class ConvOp:
    """``F.conv1d`` or ``F.conv2d`` with a layer's stride, padding, dilation, groups and padding mode."""

    in_channels: int
    out_channels: int
    dimensions: int
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    padding_mode: Any
    edges: tuple[int, ...]  # how much each edge grows, in the order of F.pad; used by modes other than zeros

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self.edges, mode=self.padding_mode), (0,) * self.dimensions
        convolve = F.conv1d if self.dimensions == 1 else F.conv2d
        return convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    @property
    def in_features(self) -> int:
        return self.in_channels

    def over_inputs(self, values: Tensor) -> Tensor:
        return values.view(-1, *(1,) * self.dimensions)

    over_outputs = over_inputs

    def over_weights(self, values: Tensor) -> Tensor:
        # Outputs see the channels of their own group only.
        rows = values.view(self.groups, -1).repeat_interleave(self.out_channels // self.groups, 0)
        return rows.view(*rows.shape, *(1,) * self.dimensions)

    def plain(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        kind = nn.Conv1d if self.dimensions == 1 else nn.Conv2d
        layer = kind(
            self.in_channels,
            self.out_channels,
            tuple(weight.shape[2:]),  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            self.groups,
            bias is not None,
            self.padding_mode,
            device="meta",
        )
        return _with_values(layer, weight, bias)

    def example_shape(self, x: Tensor) -> torch.Size:
        return torch.Size((*x.shape[: -self.dimensions], *(1,) * self.dimensions))


def _linear_op(layer: nn.Linear, channels: int | None) -> LinearOp:
    channels = channels or layer.in_features
    if layer.in_features % channels:
        raise ValueError(f"channels must divide the layer's {layer.in_features} input features, got {channels}.")
    return LinearOp(layer.in_features, channels)


def _conv_op(layer: Any, channels: int | None) -> ConvOp:
    return ConvOp(
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        dimensions=len(layer.kernel_size),
        stride=tuple(layer.stride),
        padding=layer.padding if isinstance(layer.padding, str) else tuple(layer.padding),
        dilation=tuple(layer.dilation),
        groups=layer.groups,
        padding_mode=layer.padding_mode,
        edges=tuple(layer._reversed_padding_repeated_twice),
    )


def _with_values(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer.weight = nn.Parameter(weight)
    layer.bias = None if bias is None else nn.Parameter(bias)
    return layer


# A new layer kind is one more line here.
OPS: dict[type, Callable[[Any, int | None], Op]] = {nn.Linear: _linear_op, nn.Conv1d: _conv_op, nn.Conv2d: _conv_op}


class BayesianLayer(nn.Module):
    """A plain layer whose weight and bias are random under a method: the only Bayesian layer class there is.

    ``BayesianLayer(nn.Conv2d(3, 16, 5), LRT())``. ``weight`` and ``bias`` are posteriors, so parameters are named
    ``weight.mu``, ``weight.rho``, ``bias.mu`` and so on.

    ``sampling`` decides whether a forward pass draws noise (the default) or uses the mean weights. It has nothing to do
    with ``train()`` and ``eval()``, which belong to batch norm and dropout; set it for a network with :func:`sampling`.

    Args:
        layer: Linear, Conv1d or Conv2d; its values are the first means.
        method: how they are random.
        channels: for a linear layer that reads flattened images, how many channels they had; null takes each feature
            for a channel.

    Raises:
        TypeError: for a layer that is not exactly Linear, Conv1d or Conv2d.
    """

    def __init__(self, layer: Any, method: Method, channels: int | None = None):
        super().__init__()
        if type(layer) not in OPS:
            known = ", ".join(kind.__name__ for kind in OPS)
            raise TypeError(f"layer must be one of {known}, got {type(layer).__name__}.")
        self.method = method
        self.op: Any = OPS[type(layer)](layer, channels)
        self.weight = method.weight(layer.weight, self.op)
        self.bias = None if layer.bias is None else method.bias(layer.bias)
        self.sampling = True
        self.compiles = False
        self.train(layer.training)
        self._plain = f"{type(layer).__name__}({layer.extra_repr()})"

    def forward(self, x: Tensor) -> Tensor:
        if self.sampling:
            with compiling(self.compiles):
                return self.method.forward(self.op, x, self.weight, self.bias)
        return self.op(x, self.weight.mean, None if self.bias is None else self.bias.mean)

    def sampler(self, x: Tensor) -> Callable[[], Tensor]:
        """What gives a sample of the output for ``x`` at each call; what all samples share is computed once."""
        with compiling(self.compiles):
            found = self.method.moments(self.op, x, self.weight, self.bias) if self.sampling else None

        def sample() -> Tensor:
            if found is None:
                return self(x)
            with compiling(self.compiles):
                return with_noise(*found)

        return sample

    def extra_repr(self) -> str:
        return f"{self._plain}, {self.method}"


def bayesianize(net: nn.Module, method: Method, only: str | Iterable[str] = "*") -> nn.Module:
    """A copy of ``net`` in which the Linear, Conv1d and Conv2d layers named like ``only`` are random under ``method``.

    The layers' values, trained or not, become the posterior means (unless the method draws its own). A layer that is
    used in two places stays one layer. ``net`` itself is not touched. The channels that are flattened into a linear
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
    channels = _flattened_channels(holder)
    return _replaced(
        holder, {layer: BayesianLayer(layer, method, channels.get(layer)) for layer in names if layer in chosen}
    )


def plain(net: nn.Module, keep: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The deterministic network at the mean weights: a copy of ``net`` in plain layers, the inverse of bayesianize.

    Args:
        net: a network with random layers.
        keep: for the names of :func:`posteriors` a mask over the tensor; where it is false the result has a 0.
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
            made[layer] = layer.op.plain(*values).train(layer.training)
    return _replaced(holder, made)


def load_plain_state_dict(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Starts ``net``, a bayesianized network, from the weights of its deterministic twin, in place.

    Each random layer is made anew by its method from the twin's values; all others take them as they are.

    Raises:
        ValueError: when the twin's tensors are not those of ``net``.
    """
    twin = plain(net)
    expected, found = twin.state_dict(), dict(state_dict)
    for name in sorted(expected.keys() | found.keys()):
        sizes = [list(tensors[name].shape) if name in tensors else "nothing" for tensors in (expected, found)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"{name} must be {sizes[0]} as in this network, got {sizes[1]}.")
    twin.load_state_dict(found)
    layers = dict(twin.named_modules())
    for name, layer in net.named_modules():
        if isinstance(layer, BayesianLayer):
            values: Any = layers[name]
            layer.weight = layer.method.weight(values.weight, layer.op)
            layer.bias = None if values.bias is None else layer.method.bias(values.bias)
            del found[f"{name}.weight".removeprefix(".")]
            found.pop(f"{name}.bias".removeprefix("."), None)
    net.load_state_dict(found, strict=False)


def _replaced(holder: nn.ModuleDict, made: Mapping[Any, nn.Module]) -> nn.Module:
    for parent in list(holder.modules()):
        for name, child in list(parent._modules.items()):  # named_children() would skip a layer's second place
            if child is not None and child in made:
                parent._modules[name] = made[child]
    return holder["net"]


def _flattened_channels(net: nn.Module) -> dict[nn.Module, int]:
    """The channels that are flattened into a linear layer, for each chain in which convolution and layer both stand."""
    found: dict[nn.Module, int] = {}
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
                    found[leaf] = flattened
                channels = flattened = None
    return found


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


def bayesian_layers(net: nn.Module) -> list[BayesianLayer]:
    """The random layers of ``net``, each once."""
    return [module for module in net.modules() if isinstance(module, BayesianLayer)]


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
    found = [posterior for _, posterior in posteriors(net)]
    gaussians = [posterior for posterior in found if isinstance(posterior, Gaussian)]
    with compiling(any(layer.compiles for layer in bayesian_layers(net))):
        terms = [posterior.kl() for posterior in found if not isinstance(posterior, Gaussian)]
        if gaussians:
            terms.append(Gaussian.kl_of_all(gaussians))
    if terms:
        return torch.stack(terms).sum()
    parameter = next(net.parameters(), None)
    return torch.zeros((), device=None if parameter is None else parameter.device)


def sigma_over_prior(net: nn.Module) -> float | None:
    """The mean of sigma / prior_sigma over all Gaussian weights with a normal prior; None where there are none.

    Near 0 the posterior is a point, whatever the accuracy; at 1 most weights are as the prior left them.
    """
    total, count = 0.0, 0
    for _, posterior in posteriors(net):
        if getattr(posterior, "prior_sigma", None) is not None and posterior.prior is None:
            ratio = posterior.variance.detach().sqrt() / posterior.prior_sigma
            total, count = total + ratio.cpu().double().sum().item(), count + ratio.numel()
    return total / count if count else None


@contextmanager
def sampling(net: nn.Module, enabled: bool) -> Iterator[nn.Module]:
    """Inside the ``with``, forward passes of ``net`` draw noise (True) or use the mean weights (False).

    On exit every layer is as it was before, also after an exception.
    """
    layers = bayesian_layers(net)
    before = [layer.sampling for layer in layers]
    try:
        for layer in layers:
            layer.sampling = enabled
        yield net
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.sampling = was
