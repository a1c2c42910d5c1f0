"""The weight of the KL term as a function of epoch and step, without state."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class KLWeight(ABC):
    """The weight beta of the KL term at each step. The objective is the ELBO where its mean over an epoch is 1."""

    @abstractmethod
    def __call__(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        """The weight at optimiser step ``step`` (from 0) of ``steps`` in ``epoch`` (from 0) of ``epochs``."""

    def settled(self, epoch: int, epochs: int) -> bool:
        """Whether the warm-up is over; earlier epochs have another objective and are no candidates for the best."""
        return True


@dataclass(frozen=True)
class Constant(KLWeight):
    """The same weight c at every step; 1 is Bayes, less is a cold posterior.

    Args:
        weight: c, 0 or more.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight must be a number from 0 up, got {self.weight}.")

    def __call__(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        return float(self.weight)


@dataclass(frozen=True)
class Standard(Constant):
    """The usual name of Constant in the literature: every one of an epoch's M steps carries KL/M."""


@dataclass(frozen=True)
class Blundell(KLWeight):
    """beta_i = M * 2^(M-i) / (2^M - 1) at step i = 1..M of an epoch: the first steps carry nearly all of the KL.

    Blundell et al. 2015 (arXiv:1505.05424), eq. 9, times M because that equation pairs with sums over a batch. Its mean
    over an epoch is 1, but half of the KL falls on one step, where Adam's normalisation breaks the intended sum.
    ``reference_scale`` leaves the factor M out, as the PyTorch-BayesianCNN code does: the posterior is then tempered
    by 1/M.
    """

    reference_scale: bool = False

    def __call__(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        share = 2.0 ** -(step + 1) / -math.expm1(-steps * math.log(2))  # never 2^M, which overflows at M = 1024
        return share if self.reference_scale else steps * share


@dataclass(frozen=True)
class Soenderby(KLWeight):
    """min(epoch / (epochs // 4), 1): warm-up over the first quarter. Sonderby et al. 2016 (arXiv:1602.02282)."""

    def __call__(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        return min(epoch / max(1, epochs // 4), 1.0)

    def settled(self, epoch: int, epochs: int) -> bool:
        return epoch >= max(1, epochs // 4)


@dataclass(frozen=True)
class LinearWarmup(KLWeight):
    """0 before epoch ``start``, then linear to ``peak`` over ``length``: peak min(max(epoch - start, 0) / length, 1).

    Args:
        start: an epoch, or with a decimal point (such as 0.1) a fraction of the run.
        length: a number of epochs, or a fraction of the run; 5 and 15 are the sparse variational dropout recipe.
        peak: the weight that it rises to; below 1 the posterior is tempered.
    """

    start: int | float = 0
    length: int | float = 0.3
    peak: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.peak < math.inf:
            raise ValueError(f"peak must be a positive number such as 1, got {self.peak}.")
        for name in ("start", "length"):
            value = getattr(self, name)
            if value < 0 or (isinstance(value, float) and value > 1):
                raise ValueError(f"{name} must be whole epochs, or a fraction of the run from 0.0 to 1.0, got {value}.")

    def __call__(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        start, length = _in_epochs(self.start, epochs), _in_epochs(self.length, epochs)
        return self.peak * (min(max(epoch - start, 0.0) / length, 1.0) if length > 0 else float(epoch >= start))

    def settled(self, epoch: int, epochs: int) -> bool:
        return epoch >= _in_epochs(self.start, epochs) + _in_epochs(self.length, epochs)


def _in_epochs(value: float, epochs: int) -> float:
    return value * epochs if isinstance(value, float) else value


def kl_weight(value: float | str | KLWeight) -> KLWeight:
    """The schedule that a number (a constant weight), a schedule's name or a schedule stands for.

    Raises:
        ValueError: for a name that is not a schedule's.
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
