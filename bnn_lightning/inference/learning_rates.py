"""The learning rate as a function of the epoch."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau


@dataclass(frozen=True)
class LRSchedule(ABC):
    """How the learning rate changes from epoch to epoch."""

    @abstractmethod
    def scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any]:
        """What Lightning takes as ``lr_scheduler``, for a run of ``epochs``; stepped once an epoch."""


@dataclass(frozen=True)
class LinearDecay(LRSchedule):
    """lr until epoch ``start``, then linear to ``end_factor * lr`` at epoch ``end``, then constant.

    Args:
        start: last epoch at the full rate.
        end: epoch at which the decay ends; null means the run's last epoch plus one, where the rate would be
            ``end_factor * lr``.
        end_factor: what is left of the rate at the end.
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
        """What the learning rate is multiplied with in ``epoch`` (from 0) of ``epochs``."""
        end = epochs if self.end is None else self.end
        done = min(max((epoch - self.start) / max(end - self.start, 1), 0.0), 1.0)
        return 1.0 - (1.0 - self.end_factor) * done

    def scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any]:
        return {"scheduler": LambdaLR(optimizer, lambda epoch: self.factor(epoch, epochs))}


@dataclass(frozen=True)
class Plateau(LRSchedule):
    """lr times ``factor`` whenever the validation NLL has not improved for ``patience`` epochs.

    Args:
        factor: what is left of the rate each time.
        patience: epochs without improvement that are still waited for.
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
        end_factor: what is left of the rate at the end.
    """

    end_factor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.end_factor <= 1:
            raise ValueError(f"end_factor must be from 0 to 1, got {self.end_factor}.")

    def factor(self, epoch: int, epochs: int) -> float:
        """What the learning rate is multiplied with in ``epoch`` (from 0) of ``epochs``."""
        cosine = math.cos(math.pi * min(epoch / epochs, 1.0))
        return self.end_factor + (1.0 - self.end_factor) * 0.5 * (1.0 + cosine)

    def scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any]:
        return {"scheduler": LambdaLR(optimizer, lambda epoch: self.factor(epoch, epochs))}
