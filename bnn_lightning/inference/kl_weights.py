"""Schedules of the KL weight: functions of epoch and step, without state."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from bnn_lightning.core.settings import check_not_negative, check_positive


@dataclass(frozen=True)
class KLWeight(ABC):
    """The weight beta of the KL at each optimiser step, loss = nll + beta KL/N.

    Where the mean of beta over an epoch is 1, the objective is the ELBO; where it is lower, the posterior is tempered.
    """

    @abstractmethod
    def __call__(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        """The weight beta at optimiser step ``step`` (from 0) of ``steps`` in ``epoch`` (from 0) of ``epochs``."""

    def settled(self, epoch: int, epochs: int) -> bool:
        """Whether the warm-up is over in ``epoch`` (from 0) of ``epochs``.

        Earlier epochs have another objective, and none of them becomes the best epoch.
        """
        return True


@dataclass(frozen=True)
class Constant(KLWeight):
    """beta = weight at every step: 1 is the ELBO, less than 1 gives a cold posterior.

    Args:
        weight: 0 or more.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_not_negative("weight", self.weight)

    def __call__(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        return float(self.weight)


@dataclass(frozen=True)
class Standard(Constant):
    """Constant under the name that it has in the literature: each of the M steps of an epoch has KL/M."""


@dataclass(frozen=True)
class Blundell(KLWeight):
    """beta_i = M * 2^(M-i) / (2^M - 1) at step i = 1..M of an epoch: the first steps have nearly all of the KL.

    Blundell et al. 2015 (arXiv:1505.05424), eq. 9, times M: that equation is for sums over a batch. The mean over an
    epoch is 1, but half of the KL is in one step, and Adam, which normalises each step, does not add the steps up as
    intended.

    Args:
        reference_scale: leave the factor M out, as the code of PyTorch-BayesianCNN does. The posterior is then tempered
            by 1/M.
    """

    reference_scale: bool = False

    def __call__(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        fraction = 2.0 ** -(step + 1) / -math.expm1(-steps * math.log(2))  # without 2^M, which overflows at M = 1024
        return fraction if self.reference_scale else steps * fraction


@dataclass(frozen=True)
class Soenderby(KLWeight):
    """Warm-up over the first quarter of the run: beta = min(epoch / max(1, epochs // 4), 1).

    Sonderby et al. 2016 (arXiv:1602.02282).
    """

    def __call__(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        return min(epoch / max(1, epochs // 4), 1.0)

    def settled(self, epoch: int, epochs: int) -> bool:
        return epoch >= max(1, epochs // 4)


@dataclass(frozen=True)
class LinearWarmup(KLWeight):
    """Linear warm-up from epoch ``start``: beta = peak * min(max(epoch - start, 0) / length, 1).

    A warm-up that is shorter than an epoch rises with the steps of that epoch, so that a run of one epoch has a KL too.

    Args:
        start: whole epochs, or with a decimal point (such as 0.1) a fraction of the run.
        length: whole epochs, or a fraction of the run. The recipe of sparse variational dropout has start 5, length 15.
        peak: the final weight; below 1 the posterior is tempered.
    """

    start: int | float = 0
    length: int | float = 0.3
    peak: float = 1.0

    def __post_init__(self) -> None:
        check_positive("peak", self.peak, "number such as 1")
        for name in ("start", "length"):
            value = getattr(self, name)
            if not 0 <= value <= (1 if isinstance(value, float) else math.inf):
                raise ValueError(f"{name} must be whole epochs, or a fraction of the run from 0.0 to 1.0, got {value}.")

    def __call__(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        start, length = _in_epochs(self.start, epochs), _in_epochs(self.length, epochs)
        now = epoch + step / steps if 0 < length < 1 else epoch
        return self.peak * (min(max(now - start, 0.0) / length, 1.0) if length > 0 else float(epoch >= start))

    def settled(self, epoch: int, epochs: int) -> bool:
        end = _in_epochs(self.start, epochs) + _in_epochs(self.length, epochs)
        return epoch >= end or math.isclose(epoch, end)  # a tenth and four tenths of 6 epochs are 3.0000000000000004


def _in_epochs(value: float, epochs: int) -> float:
    """``value`` in epochs: a float is a fraction of the run."""
    return value * epochs if isinstance(value, float) else value


def kl_weight(value: float | str | KLWeight) -> KLWeight:
    """A schedule from a number (a constant weight), the name of a schedule, or a schedule.

    Raises:
        ValueError: when the name is unknown, or the number negative or not finite.
    """
    if isinstance(value, KLWeight):
        return value
    if isinstance(value, int | float):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"kl_weight must be a number from 0 up, or a schedule, got {value}.")
        return Constant(float(value))
    names = {schedule.__name__: schedule for schedule in (Blundell, Constant, LinearWarmup, Soenderby, Standard)}
    if value not in names:
        raise ValueError(f"kl_weight must be a number or one of {', '.join(names)}, got {value!r}.")
    return names[value]()
