"""Schedules of the learning rate: linear decay, reduction on a plateau, cosine."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau


@dataclass(frozen=True)
class LRSchedule(ABC):
    """The learning rate of each epoch."""

    @abstractmethod
    def scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any]:
        """Lightning's ``lr_scheduler`` config for a run of ``epochs``; the scheduler steps once an epoch."""


@dataclass(frozen=True)
class LinearDecay(LRSchedule):
    """lr until epoch ``start``, then linear to ``end_factor * lr`` at epoch ``end``, then constant.

    Args:
        start: last epoch at the full rate, from 0.
        end: epoch at which the decay ends; null is the epoch after the last one of the run, so that the run ends just
            before ``end_factor * lr``.
        end_factor: final learning rate divided by the initial one, from 0 to 1.
    """

    start: int = 0
    end: int | None = None
    end_factor: float = 0.0

    def __post_init__(self) -> None:
        if self.start < 0:
            raise ValueError(f"start must be an epoch from 0 up, got {self.start}.")
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end must be an epoch after start ({self.start}), got {self.end}.")
        if not 0 <= self.end_factor <= 1:
            raise ValueError(f"end_factor must be from 0 to 1, got {self.end_factor}.")

    def factor(self, epoch: int, epochs: int) -> float:
        """The learning rate of ``epoch`` (from 0) of ``epochs``, divided by lr."""
        end = epochs if self.end is None else self.end
        progress = min(max((epoch - self.start) / max(end - self.start, 1), 0.0), 1.0)
        return 1.0 - (1.0 - self.end_factor) * progress

    def scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any]:
        return {"scheduler": LambdaLR(optimizer, lambda epoch: self.factor(epoch, epochs))}


@dataclass(frozen=True)
class Plateau(LRSchedule):
    """Multiplies lr by ``factor`` after more than ``patience`` epochs without a better validation NLL.

    Args:
        factor: between 0 and 1.
        patience: epochs without improvement before the rate changes.
    """

    factor: float = 0.1
    patience: int = 6

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise ValueError(f"factor must be between 0 and 1, got {self.factor}.")
        if self.patience < 0:
            raise ValueError(f"patience must be 0 epochs or more, got {self.patience}.")

    def scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any]:
        plateau = ReduceLROnPlateau(optimizer, factor=self.factor, patience=self.patience)
        return {"scheduler": plateau, "monitor": "val/nll"}


@dataclass(frozen=True)
class Cosine(LRSchedule):
    """Half a cosine from lr to ``end_factor * lr`` over the run (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5).

    Args:
        end_factor: final learning rate divided by the initial one, from 0 to 1.
    """

    end_factor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.end_factor <= 1:
            raise ValueError(f"end_factor must be from 0 to 1, got {self.end_factor}.")

    def factor(self, epoch: int, epochs: int) -> float:
        """The learning rate of ``epoch`` (from 0) of ``epochs``, divided by lr."""
        cosine = math.cos(math.pi * min(epoch / epochs, 1.0))
        return self.end_factor + (1.0 - self.end_factor) * 0.5 * (1.0 + cosine)

    def scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any]:
        return {"scheduler": LambdaLR(optimizer, lambda epoch: self.factor(epoch, epochs))}
