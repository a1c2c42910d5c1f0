"""The units of the targets: a network predicts them standardised, and every result is in the units of the data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor


@dataclass(frozen=True)
class Units:
    """Names of the target columns, and their means and standard deviations over the training examples.

    Args:
        names: one for each target.
        mean, std: likewise; a network's output f stands for mean + std * f.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def unknown(cls, targets: int) -> Self:
        """Of targets that are used as they are, such as those of a loop in plain PyTorch."""
        names = ("target",) if targets == 1 else tuple(f"target {number}" for number in range(1, targets + 1))
        return cls(names, (0.0,) * targets, (1.0,) * targets)

    @classmethod
    def described(cls, description: Mapping[str, Any]) -> Self | None:
        """What a data module's ``describe()`` says of its targets; None where it says nothing."""
        if not description.get("target_names"):
            return None
        return cls(*(tuple(description[key]) for key in ("target_names", "target_mean", "target_std")))

    def standardised(self, y: Tensor) -> Tensor:
        """(y - mean) / std of targets ``(batch, targets)``."""
        if len(self.mean) == 1:
            return (y - self.mean[0]) / self.std[0]  # a number: no copy to the device
        return (y - y.new_tensor(self.mean)) / y.new_tensor(self.std)
