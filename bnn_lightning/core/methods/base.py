"""The contract of a method: what a weight becomes, and how its noise enters a layer."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from torch import Tensor

from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors import Posterior


class Method(ABC):
    """How the weights of a layer are random. One object serves a whole network and holds no state.

    Write a method as a frozen dataclass of its settings with the three functions below. It then works with every layer
    kind, every network and the command line.
    """

    objective: ClassVar[Literal["elbo", "regularised", "likelihood"]] = "elbo"
    """What nll + KL/N is: with the KL to a proper prior -elbo/N, a bound on -log p(data) / N; with that to an improper
    prior a regularised loss, which bounds nothing; without a KL the likelihood alone."""

    removes_weights: ClassVar[bool] = False
    """Whether the KL drives the log alpha of weights without use past
    :data:`~bnn_lightning.core.posteriors.THRESHOLD`."""

    noise_on: Literal["weights", "inputs", "outputs"] = "weights"
    """Where noise enters: ``weights`` where that of ``forward`` is the noise of weights and biases drawn from their
    posteriors; ``inputs`` or ``outputs`` where it is noise on a layer's inputs or outputs, which no weight draw has."""

    @property
    def examples_are_independent(self) -> bool:
        """Whether every example of a batch has noise of its own: then repeated examples are independent samples."""
        return False

    @abstractmethod
    def weight(self, init: Tensor, op: Op) -> Posterior:
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

    def moments(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> tuple[Tensor, Tensor] | None:
        """Mean and variance of the outputs, where ``forward`` is :func:`with_noise` of them; else None.

        They are the same for all samples of one input, so that several samples need them once.
        """
        return None

    def pretrained(self) -> Self:
        """The method for a network whose weights come from a trained one; itself, where that changes nothing."""
        return self


def check_words(method: Method) -> None:
    """Refuses, with a ValueError, a setting that is none of the words of its type; the command line does so too."""
    for name, kind in get_type_hints(type(method)).items():
        if get_origin(kind) is Literal and (value := getattr(method, name)) not in get_args(kind):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}.")
