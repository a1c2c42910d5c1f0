"""Mixture, the predictive distribution of regression: one normal or Student-t component for each sample."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from bnn_lightning.likelihoods.regression.components import (
    distribution,
    log_density,
    mean_distance,
    quantile,
    variance,
)

_BISECTIONS = 40  # the bracket of a quantile is then 1e-12 of the spread of the components' quantiles
_PAIRS = 2**22  # numbers that a chunk of the CRPS keeps at once
_HALF_NODES, _REACH = 200, 7.0  # of the CRPS of Student-t mixtures: up to sinh(7) / 4 = 137 standard deviations away
_NODES_DFS = 2.02  # of which these are, at least: below, the std, which is infinite at 2, says nothing of the middle


@dataclass(frozen=True)
class Mixture:
    """The equal mixture over samples; targets are independent given a sample. Shapes ``(batch, samples, targets)``.

    Args:
        locations, scales: of the components, in the units of the targets.
        dfs: degrees of freedom of Student-t components; None where they are normal.
    """

    locations: Tensor
    scales: Tensor
    dfs: Tensor | None = None

    @classmethod
    def of(cls, predictive: Mapping[str, Tensor]) -> Self:
        """From :meth:`predictive`."""
        return cls(predictive["locations"], predictive["scales"], predictive.get("dfs"))

    def predictive(self) -> dict[str, Tensor]:
        """The fields by name."""
        dfs = {} if self.dfs is None else {"dfs": self.dfs}
        return {"locations": self.locations, "scales": self.scales} | dfs

    def double(self) -> Self:
        """In float64, on the CPU."""
        return type(self)(*(None if part is None else part.cpu().double() for part in self._parts()))  # type: ignore[arg-type]

    def __getitem__(self, index: Tensor | slice) -> Self:
        """Of some examples."""
        return type(self)(*(None if part is None else part[index] for part in self._parts()))  # type: ignore[arg-type]

    def _parts(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.locations, self.scales, self.dfs

    def mean(self) -> Tensor:
        """The predictive mean: ``(batch, targets)``."""
        return self.locations.mean(1)

    def variances(self) -> tuple[Tensor, Tensor]:
        """Aleatoric and epistemic variance, ``(batch, targets)`` each: E Var(y | sample) and Var E(y | sample).

        Their sum is the variance of the mixture, by the law of total variance. The epistemic one is 0 for one sample.
        """
        return (self.scales.square() * variance(self.dfs)).mean(1), self.locations.var(1, correction=0)

    def std(self) -> Tensor:
        """The standard deviation of the mixture: ``(batch, targets)``."""
        aleatoric, epistemic = self.variances()
        return (aleatoric + epistemic).sqrt()

    def log_prob(self, y: Tensor) -> Tensor:
        """The log density of targets ``(batch, targets)``, all together: ``(batch,)``."""
        return self._log_densities(y).sum(-1).logsumexp(1) - math.log(self.locations.shape[1])

    def target_log_prob(self, y: Tensor) -> Tensor:
        """The log density of each target by itself: ``(batch, targets)``."""
        return self._log_densities(y).logsumexp(1) - math.log(self.locations.shape[1])

    def _log_densities(self, y: Tensor) -> Tensor:
        return log_density((y.unsqueeze(1) - self.locations) / self.scales, self.dfs) - self.scales.log()

    def distribution(self, y: Tensor) -> Tensor:
        """P(Y <= y) of each target, the probability integral transform: ``(batch, targets)``."""
        return distribution((y.unsqueeze(1) - self.locations) / self.scales, self.dfs).mean(1)

    def quantile(self, level: float) -> Tensor:
        """The value below which each target is with probability ``level``: ``(batch, targets)``.

        By bisection between the lowest and the highest of the components' quantiles.
        """
        of_components = self.locations + self.scales * quantile(level, self.dfs, self.scales)
        low, high = of_components.amin(1), of_components.amax(1)
        for _ in range(_BISECTIONS if self.locations.shape[1] > 1 else 0):
            middle = (low + high) / 2
            is_below = self.distribution(middle) < level
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return (low + high) / 2

    def interval(self, coverage: float) -> tuple[Tensor, Tensor]:
        """The ends of the central interval of probability ``coverage``: ``(batch, targets)`` each."""
        return self.quantile((1 - coverage) / 2), self.quantile((1 + coverage) / 2)

    def crps(self, y: Tensor) -> Tensor:
        """The continuous ranked probability score of each target, E|Y - y| - E|Y - Y'| / 2: ``(batch, targets)``.

        In closed form for normal components (Grimit et al. 2006). The second term of Student-t mixtures has none; it is
        the integral of F (1 - F), by the trapezoidal rule: within 0.3 % where scales are a hundredth of the std.
        """
        distance = (self.scales * mean_distance((y.unsqueeze(1) - self.locations) / self.scales, self.dfs)).mean(1)
        batch, samples, targets = self.locations.shape
        inner = samples**2 if self.dfs is None else samples * (2 * _HALF_NODES + 1)
        rows = max(1, _PAIRS // (inner * targets))
        spread = self._half_pair_distance if self.dfs is None else self._integrated_spread
        return distance - torch.cat([spread(slice(start, start + rows)) for start in range(0, batch, rows)])

    def _half_pair_distance(self, rows: slice) -> Tensor:
        locations, squares = self.locations[rows], self.scales[rows].square()
        scales = (squares.unsqueeze(1) + squares.unsqueeze(2)).sqrt()
        z = (locations.unsqueeze(1) - locations.unsqueeze(2)) / scales
        return (scales * mean_distance(z, None)).mean((1, 2)) / 2

    def _integrated_spread(self, rows: slice) -> Tensor:
        """Nodes at mean + std / 4 * sinh(u) with u in equal steps: dense in the middle, and far out in the tails."""
        part = self[rows]
        assert part.dfs is not None
        u = torch.linspace(-_REACH, _REACH, 2 * _HALF_NODES + 1, dtype=self.scales.dtype)
        std = type(self)(part.locations, part.scales, part.dfs.clamp_min(_NODES_DFS)).std()
        c = (std / 4).unsqueeze(1)
        nodes = part.mean().unsqueeze(1) + c * u.sinh().view(1, -1, 1)
        z = (nodes.unsqueeze(2) - part.locations.unsqueeze(1)) / part.scales.unsqueeze(1)
        below = distribution(z, part.dfs.unsqueeze(1)).mean(2)
        step = u[1] - u[0]
        return (below * (1 - below) * c * u.cosh().view(1, -1, 1)).sum(1) * step

    def scaled(self, factor: Tensor) -> Self:
        """With all distances from the mean multiplied by ``factor``, ``(targets,)``: both parts of the std are."""
        mean = self.mean().unsqueeze(1)
        return type(self)(mean + factor * (self.locations - mean), factor * self.scales, self.dfs)
