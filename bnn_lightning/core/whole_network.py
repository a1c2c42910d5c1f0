"""Functions over all random layers of a network: their KL, joint draws, how they are sampled, and what they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.compiling import compiling
from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.posteriors import Gaussian, Point, Posterior
from bnn_lightning.core.priors import Normal

Objective = Literal["elbo", "regularised", "likelihood"]


def bayesian_layers(net: nn.Module) -> list[BayesianLayer]:
    """The random layers of ``net``, each once."""
    return [module for module in net.modules() if isinstance(module, BayesianLayer)]


def methods_of(net: nn.Module) -> list[Method]:
    """The methods of its random layers, each once, in the order of the layers."""
    return list(dict.fromkeys(layer.method for layer in bayesian_layers(net)))


def random_tensors(net: nn.Module) -> Iterator[tuple[str, Posterior]]:
    """The random tensors of ``net`` with their names, such as ``("conv1.weight", Gaussian(...))``; each once."""
    for name, module in net.named_modules():
        if isinstance(module, BayesianLayer):
            for part in ("weight", "bias"):
                if getattr(module, part) is not None:
                    yield f"{name}.{part}".removeprefix("."), getattr(module, part)


def draw(net: nn.Module) -> dict[str, Tensor]:
    """One joint draw of all random tensors by name: a function of the input that :func:`torch.func.functional_call`
    applies to :func:`~bnn_lightning.core.conversion.to_plain` of ``net``. Tensors are independent of each other.
    """
    return {name: posterior.sample() for name, posterior in random_tensors(net)}


def width_parameters(net: nn.Module) -> list[nn.Parameter]:
    """The parameters that say how wide the posteriors of ``net`` are, such as rho, in the network's order."""
    widths = {
        id(posterior.get_parameter(name)) for _, posterior in random_tensors(net) for name in posterior.width_parameters
    }
    return [parameter for parameter in net.parameters() if id(parameter) in widths]


def kl(net: nn.Module) -> Tensor:
    """KL(posterior || prior) in nats, summed over every random tensor of ``net``, however deeply nested.

    A scalar of at least float32, computed from the current parameters: it needs no forward pass before it. Zero for a
    deterministic network.
    """
    posteriors = [posterior for _, posterior in random_tensors(net)]
    # A class derived from Gaussian may have a KL of its own.
    gaussians = [posterior for posterior in posteriors if type(posterior) is Gaussian]
    with compiling(any(layer.compiles for layer in bayesian_layers(net))):
        terms = [posterior.kl() for posterior in posteriors if type(posterior) is not Gaussian]
        if gaussians:
            terms.append(Gaussian.kl_of_all(gaussians))
    if terms:
        return torch.stack(terms).sum()
    parameter = next(net.parameters(), None)
    return torch.zeros((), device=None if parameter is None else parameter.device)


def objective_of(net: nn.Module) -> Objective:
    """What nll + KL/N of ``net`` is, see :attr:`Method.objective`: ``likelihood`` where it has no KL."""
    objectives = [method.objective for method in methods_of(net)]
    return next((kind for kind in ("regularised", "elbo") if kind in objectives), "likelihood")


def sigma_over_prior(net: nn.Module) -> float | None:
    """The mean of sigma / prior_sigma over all Gaussian weights with a normal prior; None where there are none.

    Near 0 the posterior is a point, whatever the accuracy; at 1 most weights are as the prior left them.
    """
    total, count = 0.0, 0
    for _, posterior in random_tensors(net):
        prior = getattr(posterior, "prior", None)
        if isinstance(prior, Normal):
            ratio = posterior.variance.detach().sqrt() / prior.sigma
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


@dataclass(frozen=True)
class LayerDescription:
    """A layer that has parameters.

    Args:
        name: its place in the network.
        kind: its class, or that of the plain layer it was.
        method: how its weights are random; None where it is deterministic.
        random: how many of its numbers are.
        deterministic: how many are not: weights of a plain layer, biases under dropout, scales of batch norm.
    """

    name: str
    kind: str
    method: Method | None
    random: int
    deterministic: int


@dataclass(frozen=True)
class Description:
    """The layers of a network; as text, a table."""

    layers: tuple[LayerDescription, ...]

    @property
    def random(self) -> int:
        """How many numbers of the network are random."""
        return sum(layer.random for layer in self.layers)

    @property
    def deterministic(self) -> int:
        """How many numbers of the network are not."""
        return sum(layer.deterministic for layer in self.layers)

    def __str__(self) -> str:
        rows = [("layer", "kind", "method", "random", "deterministic")]
        rows += [
            (
                layer.name,
                layer.kind,
                "-" if layer.method is None else type(layer.method).__name__,
                f"{layer.random:,}",
                f"{layer.deterministic:,}",
            )
            for layer in self.layers
        ]
        rows.append(("all", "", "", f"{self.random:,}", f"{self.deterministic:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        return "\n".join(
            "  ".join(
                text.ljust(width) if column < 3 else text.rjust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


def describe(net: nn.Module) -> Description:
    """For each layer of ``net`` its method, how many of its numbers are random, and what stayed deterministic."""
    layers, inside = [], set()
    for name, module in net.named_modules():
        if isinstance(module, BayesianLayer):
            inside |= set(module.modules())
            posteriors = [part for part in (module.weight, module.bias) if part is not None]
            sizes = [(part.mean.numel(), isinstance(part, Point)) for part in posteriors]
            layers.append(
                LayerDescription(
                    name,
                    module.kind,
                    module.method,
                    sum(size for size, is_point in sizes if not is_point),
                    sum(size for size, is_point in sizes if is_point),
                )
            )
        elif module not in inside and (numbers := sum(part.numel() for part in module.parameters(recurse=False))):
            layers.append(LayerDescription(name, type(module).__name__, None, 0, numbers))
    return Description(tuple(layers))
