"""The contract of a random tensor, and the tensor that is not random."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32

THRESHOLD = 3.0
"""A weight with log alpha above this is removed: its noise has 20 times the power of its signal, a dropout rate of
0.95 (Molchanov et al. 2017, section 4.3)."""


class Posterior(nn.Module, ABC):
    """A random tensor. ``mean``, ``variance`` and ``sample()`` have the shape of the tensor that it replaces.

    What is learnt are parameters of the module, so that a network's state_dict holds its posterior, whoever learnt it.
    A class for ``GaussianMethod(posterior=...)`` is made from ``(mu, rho, prior)`` and settings of its own.
    """

    is_factorised: bool = True
    """Whether the elements are independent of each other. Local reparameterisation is right for such posteriors only:
    it draws each output by itself, with the variance that independent weights would give it."""

    is_symmetric: bool = True
    """Whether ``sample() - mean`` has the same distribution when signs of any of its elements are flipped, as Flipout
    does from example to example."""

    @property
    def width_parameters(self) -> tuple[str, ...]:
        """Names of the parameters that say how wide it is, such as ``("rho",)``: they may have a rate of their own."""
        return ()

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The mean of each element."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """The variance of each element, in a shape that broadcasts to the tensor's."""

    @abstractmethod
    def sample(self) -> Tensor:
        """One draw, differentiable in the posterior's parameters."""

    @abstractmethod
    def kl(self) -> Tensor:
        """KL(posterior || prior) summed over the tensor: a scalar in nats, computed from the current parameters."""

    def log_alpha(self) -> Tensor:
        """log(variance / mean^2) of each element: -2 log of its signal-to-noise ratio; inf where the mean is 0."""
        dtype = at_least_float32(self.mean)
        return self.variance.to(dtype).log() - 2 * self.mean.to(dtype).abs().log()


class Point(Posterior):
    """A tensor that is not random: all mass at mu, no KL."""

    def __init__(self, mu: Tensor):
        super().__init__()
        self.mu = nn.Parameter(mu)

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.mu)

    def sample(self) -> Tensor:
        return self.mu

    def kl(self) -> Tensor:
        return torch.zeros((), dtype=at_least_float32(self.mu), device=self.mu.device)

    def log_alpha(self) -> Tensor:
        return torch.full_like(self.mu, -math.inf)

    def extra_repr(self) -> str:
        return shape_text(self.mu)


def shape_text(x: Tensor) -> str:
    """Its sizes, such as 16x3x5x5."""
    return "x".join(str(size) for size in x.shape)
