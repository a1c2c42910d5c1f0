"""Functions over all random layers of a network: their KL, how they are sampled, what they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.compiling import compiling
from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.posteriors import Gaussian


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
