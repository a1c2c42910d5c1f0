"""LaplacePrior: most weights near 0, a few far away; narrower where more inputs are added up."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bnn_lightning import Op, Prior


@dataclass(frozen=True)
class LaplacePrior(Prior):
    """p(w) = exp(-|w| / b) / (2 b) with b = scale / sqrt(fan-in) for a weight, and scale for a bias.

    Args:
        scale: b where one input is added up.
    """

    has_closed_kl = True

    scale: float = 1.0

    def for_tensor(self, init: Tensor, op: Op | None = None) -> "LaplacePrior":
        return self if op is None else replace(self, scale=self.scale / math.sqrt(init[0].numel()))

    def log_prob(self, w: Tensor) -> Tensor:
        return -w.abs() / self.scale - math.log(2 * self.scale)

    def kl(self, mu: Tensor, sigma: Tensor, log_sigma: Tensor) -> Tensor:
        ratio = mu / (math.sqrt(2) * sigma)
        mean_of_absolute = math.sqrt(2 / math.pi) * sigma * (-(ratio**2)).exp() + mu * torch.erf(ratio)
        entropy = log_sigma + 0.5 * math.log(2 * math.pi * math.e)
        return (mean_of_absolute / self.scale + math.log(2 * self.scale) - entropy).sum()
