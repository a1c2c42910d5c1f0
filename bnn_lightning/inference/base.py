"""The contract of an inference: how a posterior is learnt."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from bnn_lightning.core.conversion import bayesianize
from bnn_lightning.core.methods.base import Method
from bnn_lightning.likelihoods.base import Likelihood


@dataclass(frozen=True)
class TrainingFacts:
    """What an optimiser may have to know of the run.

    Args:
        num_train: N, the distinct training examples.
        epochs: of the run.
        can_fuse: whether torch's fused optimisers work here: on a CPU and CUDA, but not where Lightning would have to
            clip or unscale their gradients.
    """

    num_train: int
    epochs: int
    can_fuse: bool


@dataclass(frozen=True)
class Step:
    """Where a training step stands in its run; all but ``num_train`` and ``epochs`` count from 0.

    Args:
        epoch: of ``epochs``.
        step: the optimiser step in its epoch, of ``steps``.
        num_train: N, the distinct training examples.
    """

    epoch: int
    step: int
    steps: int
    epochs: int
    num_train: int


@dataclass(frozen=True)
class Terms:
    """What a training step came to.

    Args:
        loss: the scalar that backward starts from.
        nll: the expected negative log-likelihood, a mean over examples, in nats.
        kl: KL(posterior || prior), a sum over weights, in nats; zero where there is none.
        kl_weight: that the loss gave it.
        outputs: of the network, ``(samples, batch, outputs)``.
    """

    loss: Tensor
    nll: Tensor
    kl: Tensor
    kl_weight: float
    outputs: Tensor


class Inference(ABC):
    """How a posterior is learnt. Write one as a frozen dataclass of its settings.

    What is learnt lives in the network's state_dict, so that test, predict, ensembles and exports need not ask who
    learnt it.
    """

    lr: Any
    """The learning rate; None where there is none to choose."""

    fixed_in_a_run: ClassVar[tuple[str, ...]] = ("lr",)
    """Names of settings that are part of the optimiser's state: a run that goes on keeps them to its end."""

    def prepare(self, net: nn.Module, method: Method | None, only: str | list[str]) -> nn.Module:
        """The network whose state_dict is the posterior; by default ``net`` made random by ``method``."""
        return net if method is None else bayesianize(net, method, only)

    @abstractmethod
    def make_optimizer(self, net: nn.Module, facts: TrainingFacts) -> Optimizer:
        """The optimiser over the parameters of ``net``, in one group or more, each with its rate."""

    def make_scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any] | None:
        """What Lightning takes as ``lr_scheduler``; None keeps the rates constant."""
        return None

    @property
    def watches_validation(self) -> bool:
        """Whether the learning rate follows validation, so that there must be a hold-out."""
        return False

    @abstractmethod
    def loss(self, net: nn.Module, x: Tensor, y: Tensor, likelihood: Likelihood, step: Step) -> Terms:
        """The terms of a training step on inputs ``(batch, ...)`` and labels ``(batch, ...)``."""

    def is_settled(self, epoch: int, epochs: int) -> bool:
        """Whether the objective of ``epoch`` is that of the end of the run: earlier epochs cannot be the best."""
        return True

    def after_epoch(self, net: nn.Module) -> None:  # noqa: B027
        """Called when the steps of an epoch are over, before it is validated."""

    def after_fit(  # noqa: B027
        self, net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], likelihood: Likelihood
    ) -> None:
        """Called after the last step of a run, before its last validation and checkpoints.

        Args:
            net: the network.
            batches: of training images and labels, on the network's device.
            likelihood: of the labels.
        """


def checked_outputs(net: nn.Module, x: Tensor) -> Tensor:
    """The outputs of one forward pass ``(batch, outputs)``.

    Raises:
        ValueError: when they are no tensor.
    """
    outputs = net(x)
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"network must return logits, a tensor, got {type(outputs).__name__}; a ModuleWrapper is for plain PyTorch."
        )
    return outputs
