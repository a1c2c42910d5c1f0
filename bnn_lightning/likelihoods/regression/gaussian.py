"""Gaussian, the likelihood of numbers with normal noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bnn_lightning.likelihoods.base import Likelihood
from bnn_lightning.likelihoods.regression.likelihood import Regression


@dataclass(frozen=True)
class Gaussian(Regression):
    """p(y | outputs) = N(y; location, sigma^2) for each target, a number.

    Args:
        targets: number of target columns, which the data fill in.
        heteroscedastic: whether the network gives the variance for each input, as its logarithm in a second output for
            each target; otherwise sigma is one number for each target, which is learnt with the weights.
        sigma: the standard deviation of the noise where it is known, in the units of the targets; null learns it.
        beta: from 0 to 1; above 0, the loss of each example is multiplied by its predicted variance to the power of
            beta, whose gradient is stopped, so that examples with large errors are not given up as noise (beta-NLL,
            Seitzer et al. 2022, arXiv:2203.09168; they recommend 0.5). The loss is then no likelihood.
    """

    sigma: float | None = None
    beta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must be from 0 to 1, such as 0.5, got {self.beta}.")
        if self.beta and not self.heteroscedastic:
            raise ValueError(f"beta must be 0 unless heteroscedastic is true, got {self.beta}.")

    @property
    def _given_scale(self) -> float | None:
        return self.sigma

    @property
    def _scale_name(self) -> str:
        return "sigma"

    @property
    def departures(self) -> list[str]:
        return [f"beta-NLL {self.beta:g}"] if self.beta else []

    def for_training(self, class_weights: Tensor | None = None) -> Likelihood:
        super().for_training(class_weights)  # refuses weights
        if not self.beta:
            return self
        fields = (self.targets, self.heteroscedastic, self.sigma, self.beta)
        return _BetaNLL(*fields).in_units(self.units)


@dataclass(frozen=True)
class _BetaNLL(Gaussian):
    """Whose nll is the training loss: the mean of variance^beta, without its gradient, times -log p."""

    is_density = False

    def output_hessian(self, outputs: Tensor, y: Tensor) -> Tensor:
        _, scales, _ = self._standardised(outputs)
        weights = torch.cat([scales, scales], -1) ** (2 * self.beta)  # of locations and of log variances
        return weights.unsqueeze(-1) * super().output_hessian(outputs, y)

    def _losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        _, scales, _ = self._standardised(outputs)
        return scales.detach() ** (2 * self.beta) * super()._losses(outputs, y)
