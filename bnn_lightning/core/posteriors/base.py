"""The contract of a posterior, a random tensor; and Point, the tensor that is not random."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32

LOG_ALPHA_THRESHOLD = 3.0
"""Weights with log alpha above this are removed by default: the variance of their noise is 20 times their squared mean,
a dropout rate of 0.95 (Molchanov et al. 2017, section 4.3)."""


class RandomWeightError(TypeError, AttributeError):
    """A network computes with the weight of a random layer, instead of calling the layer.

    Args:
        posterior: of the weight.
        function: of torch, which it was given to, or the name of one of a tensor's methods.
    """

    def __init__(self, posterior: nn.Module, function: Any):
        name = getattr(function, "__name__", str(function))
        super().__init__(
            f"network gives the weight of a random layer to {name} instead of calling the layer; leave that layer out "
            'with only=["*", "!NAME"].'
        )
        self.posterior = posterior


class Posterior(nn.Module, ABC):
    """A random tensor. ``mean`` and ``sample()`` have the shape of the tensor that it replaces.

    Everything that is learnt is a parameter of the module, so that the posterior is part of the network's state_dict. A
    class for ``GaussianMethod(posterior=...)`` is created from ``(mu, rho, prior)`` and settings of its own.
    """

    is_factorised: bool = True
    """Whether the elements are independent of each other. Local reparameterisation requires it: it draws each output
    independently, with the variance that independent weights give it."""

    is_symmetric: bool = True
    """Whether ``sample() - mean`` keeps its distribution when the signs of any of its elements are flipped. Flipout
    requires it."""

    has_variance: bool = True
    """Whether the elements have a variance. Figures of widths leave out posteriors without one."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuses to be a tensor: a network that reads a layer's weight would be given no draw, or several."""
        raise RandomWeightError(
            next(part for part in (*args, *(kwargs or {}).values()) if isinstance(part, cls)), function
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if hasattr(Tensor, name):  # such as weight.t()
                raise RandomWeightError(self, name) from None
            raise

    @property
    def width_parameters(self) -> tuple[str, ...]:
        """Names of the parameters that set the width of the posterior, such as ``("rho",)``.

        The optimiser may give them a learning rate of their own, and no weight decay.
        """
        return ()

    @property
    def shape(self) -> torch.Size:
        """Of the tensor that it replaces; with dtype and device what networks read of a layer's weight."""
        return self.mean.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.mean.dtype

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The mean of each element; its location, where the distribution has no mean."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """The variance of each element, in a shape that broadcasts to the tensor's.

        Raises:
            ValueError: when there is none, see :attr:`has_variance`.
        """

    @abstractmethod
    def sample(self) -> Tensor:
        """One draw of the tensor, differentiable in the posterior's parameters."""

    @abstractmethod
    def kl(self) -> Tensor:
        """KL(posterior || prior) in nats, summed over the tensor: a scalar, computed from the current parameters."""

    def log_alpha(self) -> Tensor:
        """log(variance / mean^2) of each element, -2 log of its signal-to-noise ratio; inf where the mean is 0."""
        dtype = at_least_float32(self.mean)
        return self.variance.to(dtype).log() - 2 * self.mean.to(dtype).abs().log()


class Point(Posterior):
    """A tensor that is not random: its value is the parameter ``mu``, its variance and its KL are 0."""

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
    """The shape of ``x`` as text, such as 16x3x5x5."""
    return "x".join(str(size) for size in x.shape)
