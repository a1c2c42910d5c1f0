"""SoftBox, a prior under which weights move freely within a width and hardly leave it; narrower for a larger fan-in."""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from bnn_lightning import Op, Prior


@dataclass(frozen=True)
class SoftBox(Prior):
    """p(w) = exp(-(w / b)^4) / (2 b Gamma(5/4)) with b = width / sqrt(fan-in) for a weight, and width for a bias.

    Args:
        width: b where one input is added up.
    """

    has_closed_kl = True

    width: float = 1.0

    def for_tensor(self, init: Tensor, op: Op | None = None) -> "SoftBox":
        return self if op is None else replace(self, width=self.width / math.sqrt(init.numel() / op.out_features))

    def log_prob(self, w: Tensor) -> Tensor:
        return -((w / self.width) ** 4) - self._log_norm()

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        mean_of_fourth_power = mu**4 + 6 * mu**2 * sigma**2 + 3 * sigma**4
        entropy = log_sigma + 0.5 * math.log(2 * math.pi * math.e)
        return (mean_of_fourth_power / self.width**4 + self._log_norm() - entropy).sum()

    def _log_norm(self) -> float:
        return math.log(2 * self.width) + math.lgamma(1.25)
