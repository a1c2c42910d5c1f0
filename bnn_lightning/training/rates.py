"""Learning rates that are changed from outside, such as by Lightning's LearningRateFinder."""

from typing import Any

from lightning.pytorch import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

_RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # of a group, what schedules of torch go by

Rates = list[dict[str, float]]


def rates_of(optimizer: Optimizer) -> Rates:
    """The rates of each group."""
    return [{name: group[name] for name in _RATES if name in group} for group in optimizer.param_groups]


def scale_rates(trainer: Trainer, rates: Rates, factor: float) -> None:
    """Sets all rates to ``factor`` times ``rates``, also in their schedule, so that groups keep their proportions.

    Args:
        trainer: of a run that is about to start.
        rates: of the groups as they were made.
        factor: the new learning rate over the old one.
    """
    for group, before in zip(trainer.optimizers[0].param_groups, rates, strict=True):
        group.update({name: rate * factor for name, rate in before.items()})
    for config in trainer.lr_scheduler_configs:
        _scale_schedule(config.scheduler, factor)


def _scale_schedule(scheduler: Any, factor: float) -> None:
    if hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
    for part in getattr(scheduler, "_schedulers", ()):  # of SequentialLR and ChainedScheduler
        _scale_schedule(part, factor)


def follow_schedule(trainer: Trainer) -> None:
    """Sets the rates of the epoch or step at hand: a run that goes on with more epochs has another schedule."""
    for config in trainer.lr_scheduler_configs:
        place = trainer.global_step if config.interval == "step" else trainer.current_epoch
        if isinstance(config.scheduler, LambdaLR):
            rates = zip(config.scheduler.optimizer.param_groups, config.scheduler.base_lrs, strict=True)
            for (group, base), factor in zip(rates, config.scheduler.lr_lambdas, strict=True):
                group["lr"] = base * factor(place)
