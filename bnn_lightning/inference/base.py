"""The contract of an inference, which learns a posterior, and the facts and results of a training step."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnn_lightning.core.conversion import bayesianize
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.whole_network import sampling
from bnn_lightning.likelihoods.base import Likelihood


@dataclass(frozen=True)
class TrainingFacts:
    """What an inference needs to know about the run to create its optimiser.

    Args:
        num_train: N, the number of distinct training examples.
        epochs: of the run.
        can_fuse: whether torch's fused optimisers can be used: the network is on a CPU or CUDA, and Lightning need not
            clip or unscale their gradients.
        clips_gradients: whether Lightning clips gradients before each step.
    """

    num_train: int
    epochs: int
    can_fuse: bool
    clips_gradients: bool = False


@dataclass(frozen=True)
class Step:
    """The position of a training step in its run.

    Args:
        epoch: from 0 to ``epochs`` - 1.
        step: the optimiser step in its epoch, from 0 to ``steps`` - 1.
        steps: optimiser steps in an epoch.
        epochs: of the run.
        num_train: N, the number of distinct training examples.
    """

    epoch: int
    step: int
    steps: int
    epochs: int
    num_train: int


@dataclass(frozen=True)
class Terms:
    """The results of a training step.

    Args:
        loss: the scalar to minimise.
        nll: the expected negative log-likelihood in nats, a mean over samples and examples: a scalar.
        kl: KL(posterior || prior) in nats, a sum over weights: a scalar; zero where there is no KL.
        kl_weight: the weight of the KL in the loss.
        outputs: of the network, ``(samples, batch, outputs)``.
    """

    loss: Tensor
    nll: Tensor
    kl: Tensor
    kl_weight: float
    outputs: Tensor


class Inference(ABC):
    """How a posterior is learnt.

    Write an inference as a frozen dataclass of its settings with a field ``lr`` and with :meth:`make_optimizer` and
    :meth:`loss`. The learnt posterior is part of the network's state_dict, so that test, predict, ensembles and exports
    do not depend on the inference.
    """

    lr: Any
    """The learning rate; None where the inference has none to choose."""

    fixed_in_a_run: ClassVar[tuple[str, ...]] = ("lr",)
    """Names of settings that are part of the optimiser's state: a resumed run cannot change them."""

    brings_method: ClassVar[bool] = False
    """Whether it says itself which tensors are random, and how: :meth:`prepare` then refuses a method."""

    def prepare(self, net: nn.Module, method: Method | None, only: str | list[str]) -> nn.Module:
        """The network to train, whose state_dict holds the posterior.

        By default ``net`` in which the layers that match ``only`` are random under ``method``, see
        :func:`~bnn_lightning.bayesianize`; ``net`` itself without a method.
        """
        return net if method is None else bayesianize(net, method, only)

    @abstractmethod
    def make_optimizer(self, net: nn.Module, facts: TrainingFacts) -> Optimizer:
        """The optimiser for the parameters of ``net``, in one or more groups, each with its learning rate."""

    def make_scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any] | None:
        """Lightning's ``lr_scheduler`` config for a run of ``epochs``; None keeps the learning rates constant."""
        return None

    def start(self, optimizer: Optimizer, steps: int) -> None:  # noqa: B027
        """Called before the first step, also of a run that goes on, whose optimiser then has its state.

        Args:
            optimizer: of :meth:`make_optimizer`.
            steps: optimiser steps of the whole run.
        """

    @property
    def watches_validation(self) -> bool:
        """Whether the learning rate depends on validation metrics, so that a hold-out is required."""
        return False

    @abstractmethod
    def loss(self, net: nn.Module, x: Tensor, y: Tensor, likelihood: Likelihood, step: Step) -> Terms:
        """Loss, nll, KL and outputs of a training step.

        Args:
            net: the network of :meth:`prepare`.
            x: inputs, ``(batch, channels, height, width)`` for images.
            y: labels, ``(batch, ...)``.
            likelihood: of the labels.
            step: the position of the step in its run.
        """

    def is_settled(self, epoch: int, epochs: int) -> bool:
        """Whether ``epoch`` (from 0) of ``epochs`` has the final objective; no earlier epoch becomes the best one.

        An inference that forms its posterior in :meth:`after_fit` has it in the last epoch alone.
        """
        return type(self).after_fit is Inference.after_fit or epoch + 1 >= epochs

    def after_epoch(self, net: nn.Module) -> None:  # noqa: B027
        """Called after the last step of each epoch, before its validation."""

    def after_fit(  # noqa: B027
        self, net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], likelihood: Likelihood
    ) -> None:
        """Called after the last step of a run that comes to its end, before its last validation and checkpoint.

        A run that something stops early does not come here. In a run of several processes each is called, with its own
        share of the batches: what is computed from them has to be averaged over the processes. A run that is made
        longer later goes on from what this has made.

        Args:
            net: the network.
            batches: training images and labels on the network's device, one pass over the training data.
            likelihood: of the labels.
        """

    def findings(self, net: nn.Module) -> dict[str, float]:
        """What :meth:`after_fit` has found out, by name, such as a log marginal likelihood; by default nothing."""
        return {}


def mean_weight_terms(net: nn.Module, x: Tensor, y: Tensor, likelihood: Likelihood) -> Terms:
    """The terms of a step that trains the mean weights alone: the nll of a forward pass without noise, and no KL."""
    with sampling(net, False):
        outputs = checked_outputs(net, x).unsqueeze(0)
    nll = likelihood.nll(outputs, y)
    return Terms(nll, nll, torch.zeros_like(nll), 1.0, outputs)


def sampled_outputs(net: nn.Module, x: Tensor, samples: int) -> Tensor:
    """The outputs of ``samples`` forward passes, ``(samples, batch, outputs)``."""
    # A network may change its inputs in place.
    inputs = [x] if samples == 1 else [x.clone() for _ in range(samples)]
    return torch.stack([checked_outputs(net, each) for each in inputs])


def checked_outputs(net: nn.Module, x: Tensor) -> Tensor:
    """The outputs of one forward pass, ``(batch, outputs)``.

    Raises:
        ValueError: when the network does not return a tensor.
    """
    outputs = net(x)
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"network must return its outputs as one tensor, got {type(outputs).__name__}; wrap it in a module whose "
            "forward returns the outputs alone (a ModuleWrapper, which returns outputs and KL, is for plain PyTorch)."
        )
    return outputs
