"""The contract of a method: what a weight becomes, and how its noise enters a layer."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from bnn_lightning.posteriors import Posterior

Op = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A layer's arithmetic, ``op(x, weight, bias)``: linear in x for a fixed weight, with the layer's geometry inside."""


class Method(ABC):
    """How the weights of a layer are random. One object serves a whole network and holds no state.

    Write a method as a frozen dataclass of its settings with the three functions below. It then works with every layer
    kind, every network and the command line.
    """

    @abstractmethod
    def weight(self, init: Tensor) -> Posterior:
        """The posterior (an ``nn.Module``) that replaces a plain layer's weight, whose value is ``init``."""

    @abstractmethod
    def bias(self, init: Tensor) -> Posterior:
        """The same for a bias."""

    @abstractmethod
    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        """``op`` at random weights.

        Shapes are the plain layer's: ``(..., features)`` for linear layers, ``(batch, channels, [height,] width)`` for
        convolutions. The result has the dtype that ``op`` gives.
        """
