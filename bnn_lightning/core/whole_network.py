"""Functions over all Bayesian layers of a network: KL, joint weight draws, sampling on and off, description."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.compiling import compiling
from bnn_lightning.core.layers import RandomLayer
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.objective import Objective
from bnn_lightning.core.posteriors import Gaussian, Point, Posterior, sample_together
from bnn_lightning.core.priors import Normal


def bayesian_layers(net: nn.Module) -> list[RandomLayer]:
    """The random layers of ``net``, in its order; a layer that is used twice once."""
    return [module for module in net.modules() if isinstance(module, RandomLayer)]


def methods_of(net: nn.Module) -> list[Method]:
    """The distinct methods of the random layers, in the order of the layers."""
    return list(dict.fromkeys(layer.method for layer in bayesian_layers(net)))


def random_tensors(net: nn.Module) -> Iterator[tuple[str, Posterior]]:
    """Names and posteriors of the weights and biases of all random layers: ``("conv1.weight", Gaussian(...))``.

    The names are those of the plain network's parameters.

    Each tensor occurs once, also if its layer is used twice. Biases that are not random, as under dropout, are among
    them as :class:`~bnn_lightning.Point`.
    """
    for name, module in net.named_modules():
        if isinstance(module, RandomLayer):
            for tensor_name, posterior in module.tensors().items():
                yield f"{name}.{tensor_name}".removeprefix("."), posterior


def draw(net: nn.Module) -> dict[str, Tensor]:
    """One joint sample of all random tensors of ``net`` by name, differentiable in the posterior's parameters.

    ``torch.func.functional_call(to_plain(net), draw(net), (x,))`` is the network at these weights. Tensors are drawn
    independently of each other, unless they are parts of a joint posterior (:class:`JointPart`): each joint is drawn
    once. A forward pass goes from layer to layer, and draws together what is in one layer: where a joint has parts in
    several layers, only this function draws it.
    """
    tensors = dict(random_tensors(net))
    return dict(zip(tensors, sample_together(tensors.values()), strict=True))


def width_parameters(net: nn.Module) -> list[nn.Parameter]:
    """The parameters of ``net`` that set widths, such as rho of a posterior, in the order of its parameters.

    They are those that posteriors, and other modules such as noise that is learnt, name as ``width_parameters``.
    """
    widths = {
        id(module.get_parameter(name)) for module in net.modules() for name in getattr(module, "width_parameters", ())
    }
    return [parameter for parameter in net.parameters() if id(parameter) in widths]


def kl(net: nn.Module) -> Tensor:
    """KL(posterior || prior) in nats, summed over all random tensors of ``net``, however deeply nested.

    A scalar of at least float32, computed from the current parameters; it needs no forward pass before. Zero for a
    deterministic network.
    """
    posteriors = [posterior for _, posterior in random_tensors(net)]
    # Exactly Gaussian: a derived class may have a KL of its own.
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
    """What nll + KL/N is for ``net``: the weakest claim among its methods, see :attr:`bnn_lightning.Method.objective`.

    ``regularised`` if any method's is, else ``elbo`` if any method has a KL, else ``likelihood``.
    """
    objectives = [method.objective for method in methods_of(net)]
    return next((objective for objective in ("regularised", "elbo") if objective in objectives), "likelihood")


def sigma_over_prior(net: nn.Module) -> float | None:
    """The mean of sigma / prior_sigma over all weights and biases with a normal prior; None where there are none.

    Near 0 the posterior is close to a point estimate; near 1 most weights have the width of the prior, as if they had
    learnt nothing.
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

    On exit each layer returns to its previous mode, also after an exception.
    """
    layers = bayesian_layers(net)
    previous_modes = [layer.sampling for layer in layers]
    try:
        for layer in layers:
            layer.sampling = enabled
        yield net
    finally:
        for layer, mode in zip(layers, previous_modes, strict=True):
            layer.sampling = mode


@contextmanager
def evaluating(net: nn.Module) -> Iterator[nn.Module]:
    """Inside the ``with``, ``net`` is in eval mode; on exit each module returns to its previous mode."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield net
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class LayerDescription:
    """A layer that has parameters.

    Args:
        name: in the network, such as ``features.conv1``.
        kind: its class; of a random layer that of the plain layer.
        method: of a random layer; None for a deterministic one.
        random: number of its random weights and biases.
        deterministic: number of its other parameters: weights of a plain layer, biases under dropout, scales of batch
            norm.
    """

    name: str
    kind: str
    method: Method | None
    random: int
    deterministic: int


@dataclass(frozen=True)
class Description:
    """The layers of a network that have parameters; ``str()`` of it is a table."""

    layers: tuple[LayerDescription, ...]

    @property
    def random(self) -> int:
        """The number of random weights and biases of the network."""
        return sum(layer.random for layer in self.layers)

    @property
    def deterministic(self) -> int:
        """The number of its other parameters."""
        return sum(layer.deterministic for layer in self.layers)

    def __str__(self) -> str:
        rows = [("layer", "kind", "method", "random", "deterministic")]
        rows += [
            (
                layer.name,
                layer.kind,
                # Methods that no command line names, for an inference brings them, begin with an underscore.
                "-" if layer.method is None else type(layer.method).__name__.removeprefix("_"),
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
    """For each layer of ``net`` with parameters its method, and how many of its weights and biases are random."""
    layers, inside_random = [], set()
    for name, module in net.named_modules():
        if isinstance(module, RandomLayer):
            inside_random |= set(module.modules())
            sizes = [(part.mean.numel(), isinstance(part, Point)) for part in module.tensors().values()]
            layers.append(
                LayerDescription(
                    name,
                    module.kind,
                    module.method,
                    sum(size for size, is_point in sizes if not is_point),
                    sum(size for size, is_point in sizes if is_point),
                )
            )
        elif module not in inside_random and (
            count := sum(parameter.numel() for parameter in module.parameters(recurse=False))
        ):
            layers.append(LayerDescription(name, type(module).__name__, None, 0, count))
    return Description(tuple(layers))
