"""The contract of a random tensor, the one that is not random, and what is asked of all of them."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32


class Posterior(Protocol):
    """A random tensor. ``mean``, ``variance`` and ``sample()`` have the shape of the tensor it replaces."""

    @property
    def mean(self) -> Tensor: ...

    @property
    def variance(self) -> Tensor: ...

    def sample(self) -> Tensor:
        """One draw, differentiable in the posterior's parameters."""
        ...

    def kl(self) -> Tensor:
        """KL(posterior || prior) summed over the tensor: a scalar in nats, computed from the current parameters."""
        ...

    def log_alpha(self) -> Tensor:
        """log(variance / mu^2) of each element: -2 log of its signal-to-noise ratio; inf where mu is 0 under noise."""
        ...


class Point(nn.Module):
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


# The parameters of a posterior that say how wide it is.
SPREADS = ("rho", "log_alpha", "log_sigma2", "log_sigma")
THRESHOLD = 3.0
"""A weight with log alpha above this is removed: its noise has 20 times the power of its signal, a dropout rate of
0.95 (Molchanov et al. 2017, section 4.3)."""


def shape_text(x: Tensor) -> str:
    """Its sizes, such as 16x3x5x5."""
    return "x".join(str(size) for size in x.shape)
