"""What inferences that train by any optimiser of torch share: optimiser, learning rate and its schedule."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from bnn_lightning.core.settings import check_positive
from bnn_lightning.inference.base import Inference, TrainingFacts
from bnn_lightning.inference.learning_rates import LRSchedule

MakeOptimizer = Callable[[Iterable], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler]


@dataclass(frozen=True)
class GradientDescent(Inference):
    """Trains by an optimiser of torch, with a learning rate and a schedule; a derived class has the loss.

    Args:
        lr: the learning rate; null takes the optimiser's default.
        optimizer: any class of torch.optim, or your own, with its settings.
        lr_schedule: LinearDecay, Cosine or Plateau; or any class of torch.optim.lr_scheduler, stepped once an epoch.
            null keeps the rate constant.
    """

    fixed_in_a_run: ClassVar[tuple[str, ...]] = ("lr", "optimizer")

    lr: float | None = None
    optimizer: MakeOptimizer = Adam
    lr_schedule: LRSchedule | MakeScheduler | None = None

    def __post_init__(self) -> None:
        check_positive("lr", self.lr)
        try:
            optimizer = self.optimizer([nn.Parameter(torch.zeros(1))])
            self.optimizer([{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))]}])
        except (TypeError, ValueError) as error:
            raise ValueError(f"optimizer must be one of torch's for several groups of parameters: {error}") from error
        optimizer_lr, default_lr = optimizer.defaults.get("lr"), default_argument(optimizer, "lr")
        if self.lr is None:
            object.__setattr__(self, "lr", optimizer_lr)
        elif optimizer_lr not in (default_lr, self.lr):
            raise ValueError(f"lr must be one number for inference and optimizer, got {self.lr} and {optimizer_lr}.")

    def make_optimizer(self, net: nn.Module, facts: TrainingFacts) -> Optimizer:
        return self.optimizer_of([list(net.parameters())], facts)

    def optimizer_of(self, groups: Sequence[Sequence[Tensor]], facts: TrainingFacts) -> Optimizer:
        """The optimiser for what is trained in each of ``groups``, all at the learning rate.

        Raises:
            ValueError: when nothing is trained.
        """
        trained = [{"params": [each for each in group if each.requires_grad]} for group in groups]
        if not any(group["params"] for group in trained):
            raise ValueError("network must have parameters to train, got one whose parameters are all frozen.")
        optimizer = self.optimizer(trained)
        can_fuse = facts.can_fuse and isinstance(optimizer, Adam | SGD)
        for group in optimizer.param_groups:
            group["lr"] = self.lr
            if can_fuse and group["fused"] is None and group["foreach"] is None:
                group["fused"] = True
        return optimizer

    def make_scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any] | None:
        if self.lr_schedule is None:
            return None
        if isinstance(self.lr_schedule, LRSchedule):
            return self.lr_schedule.scheduler(optimizer, epochs)
        scheduler: Any = self.lr_schedule(optimizer)
        _check_length(self.lr_schedule, epochs)
        monitor = {"monitor": "val/nll"} if isinstance(scheduler, ReduceLROnPlateau) else {}
        return {"scheduler": scheduler} | monitor

    @property
    def watches_validation(self) -> bool:
        scheduler = self.make_scheduler(self.optimizer([nn.Parameter(torch.zeros(1))]), epochs=1)
        return scheduler is not None and "monitor" in scheduler


def _check_length(schedule: MakeScheduler, epochs: int) -> None:
    """Steps a schedule through a run of ``epochs``, for an optimiser of its own.

    Raises:
        ValueError: when it ends before the run.
    """
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimizer)
    if isinstance(scheduler, ReduceLROnPlateau):
        return
    try:
        for _ in range(epochs):
            optimizer.step()
            scheduler.step()
    except ValueError as error:
        raise ValueError(
            f"lr_schedule must last for the {epochs} epochs of the run, a step for each, got one that does not: {error}"
        ) from error


def divides_by_gradients(optimizer: Optimizer) -> bool:
    """Whether its steps are gradients over their size plus epsilon, so that only epsilon knows how large they are."""
    return isinstance(optimizer.defaults.get("eps"), float) and not isinstance(optimizer, Adadelta)


def default_argument(optimizer: Optimizer, name: str) -> Any:
    """The default of an argument of the optimiser's class; None if it has no such argument."""
    parameter = inspect.signature(type(optimizer)).parameters.get(name)
    return None if parameter is None else parameter.default
