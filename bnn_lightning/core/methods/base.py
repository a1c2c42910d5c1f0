"""The contract of a method: which posterior replaces a weight, and how its noise enters a layer."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

from torch import Tensor

from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors import Posterior


class Method(ABC):
    """How the weights of a layer are random. One object serves a whole network and holds no state.

    Write a method as a frozen dataclass of its settings with :meth:`weight`, :meth:`bias` and :meth:`forward`. It then
    works with every layer kind, every network and the command line.
    """

    removes_weights: ClassVar[bool] = False
    """Whether the KL drives the log alpha of unused weights past 3, so that they can be removed."""

    free_after_training: ClassVar[tuple[str, ...]] = ()
    """Names of settings that only say how a trained network is sampled: a checkpoint can be used with others."""

    @property
    def objective(self) -> Literal["elbo", "regularised", "likelihood"]:
        """What nll + KL/N is; a class attribute of most methods.

        ``elbo``: the KL is to a proper prior, and nll + KL/N = -elbo/N bounds -log p(data) / N. ``regularised``: nll +
        KL/N is a regularised loss, no bound, because the prior is improper or the expected nll infinite.
        ``likelihood``: the method has no KL.
        """
        return "elbo"

    @property
    def noise_on(self) -> Literal["weights", "inputs", "outputs"]:
        """Where the noise enters; a class attribute of most methods.

        ``weights``: the outputs are those of weights and biases drawn from their posteriors, or have the moments that
        such weights give them. ``inputs`` or ``outputs``: the noise multiplies a layer's inputs or outputs, and no draw
        of the weights has the same effect.
        """
        return "weights"

    @property
    def examples_are_independent(self) -> bool:
        """Whether each example of a batch has noise of its own, so that copies of an example are independent samples.

        False where one draw serves the whole batch.
        """
        return False

    @property
    def noise_on_elements(self) -> bool:
        """Where the noise is on inputs: whether each element of an input has noise of its own.

        False where the elements of a channel share it; then a sum over them is no sum of independent terms, and moments
        are not propagated.
        """
        return True

    @abstractmethod
    def weight(self, init: Tensor, op: Op) -> Posterior:
        """The posterior that replaces a plain layer's weight.

        Args:
            init: the value of the weight.
            op: the layer's arithmetic, with its numbers of channels.
        """

    @abstractmethod
    def bias(self, init: Tensor) -> Posterior:
        """The posterior that replaces a plain layer's bias, whose value is ``init``, ``(out,)``."""

    def scale(self, init: Tensor) -> Posterior:
        """The posterior that replaces the scales of a norm layer, ``(channels,)``: by default like a bias."""
        return self.bias(init)

    @abstractmethod
    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        """One sample of the outputs of ``op`` with random weights.

        Shapes are those of the plain layer: ``(..., features)`` for linear layers, ``(batch, channels, height, width)``
        or ``(batch, channels, width)`` for convolutions. The result has the dtype of ``op(x, ...)``.
        """

    def moments(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> tuple[Tensor, Tensor] | None:
        """Mean and variance of the outputs, if :meth:`forward` is :func:`bnn_lightning.with_noise` of them; else None.

        Several samples for the same input then compute them once.
        """
        return None

    def pretrained(self) -> Self:
        """The method to use when the initial weights come from a trained network; by default unchanged."""
        return self
