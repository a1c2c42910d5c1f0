"""Calibration of predicted numbers: a factor on the spread, conformal intervals, an accept rule with bounded risk.

It is fitted on labelled examples, the calibration half of the hold-out (unused for training and model selection).
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from bnn_lightning.likelihoods.regression.mixture import Mixture
from bnn_lightning.likelihoods.search import best_scale
from bnn_lightning.likelihoods.selective import AcceptRule, accept_rule


@dataclass(frozen=True)
class Calibration:
    """The calibration of predictions from samples drawn in one way (weight draws, local draws, mean weights).

    Conformal intervals and the accept rule use the predicted standard deviation, not the scaled one: the scale was
    fitted on the same targets, so guarantees at it would not be exact.

    Args:
        std_scale: for each target the factor by which predictive standard deviations are multiplied, ``(targets,)``.
        errors: absolute errors of the calibration examples, ``(examples, targets)``, in the units of the targets.
        stds: their predictive standard deviations, likewise.
    """

    std_scale: Tensor
    errors: Tensor
    stds: Tensor

    @classmethod
    def fit(cls, mixture: Mixture, y: Tensor) -> Self:
        """The calibration from the predictives of labelled examples and their targets ``(examples, targets)``.

        Raises:
            ValueError: when there are no examples.
        """
        if len(y) == 0:
            raise ValueError("y must be of one calibration example or more, got none.")
        mixture, y = mixture.double(), y.double()
        return cls(fit_std_scale(mixture, y), (mixture.mean() - y).abs(), mixture.std())

    def conformal_factor(self, alpha: float) -> Tensor:
        """For each target the factor q of intervals mean +- q std that miss at most ``alpha`` of targets.

        Split conformal prediction with normalised residuals |y - mean| / std (Lei et al. 2018, arXiv:1604.04173): the
        ceil((1 - alpha) (n + 1))-th smallest of n calibration examples; infinite where there are too few. The rate
        holds on average over calibrations and examples like these, whatever the predictions are worth.

        Raises:
            ValueError: when ``alpha`` is not between 0 and 1.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, such as 0.05, got {alpha}.")
        # Rounded, because (1 - 0.9) (n + 1) must be a whole number where 0.1 (n + 1) is one.
        rank = math.ceil(round((1 - alpha) * (len(self.errors) + 1), 9))
        if rank > len(self.errors):
            return torch.full_like(self.std_scale, math.inf)
        return (self.errors / self.stds).sort(0).values[rank - 1]

    def accept_rule(self, target_risk: float, target_error: float, target_stds: Tensor) -> AcceptRule:
        """The rule that accepts most predictions, those of the narrowest intervals, and bounds the rate of mistakes.

        A mistake is a prediction that is wrong by more than ``target_error`` in any target. The confidence of the rule
        is :func:`confidence`; see :func:`bnn_lightning.likelihoods.selective.accept_rule`.

        Args:
            target_risk: the highest allowed rate of mistakes among accepted predictions.
            target_error: in the units of the targets.
            target_stds: of the targets in training, ``(targets,)``.

        Raises:
            ValueError: when ``target_risk`` is no rate, or ``target_error`` not positive.
        """
        if not target_error > 0:
            raise ValueError(f"target_error must be above 0, in the units of the target, got {target_error}.")
        certain, order = confidence(self.stds, target_stds).sort(descending=True, stable=True)
        return accept_rule(certain, (self.errors <= target_error).all(-1)[order], target_risk)

    def record(self) -> dict[str, Any]:
        """The fields by name, for a checkpoint."""
        return {"std_scale": self.std_scale, "errors": self.errors, "stds": self.stds}


def confidence(stds: Tensor, target_stds: Tensor) -> Tensor:
    """Minus the largest predictive standard deviation, in units of the target's own: ``(examples,)``."""
    return -(stds / target_stds.to(stds)).amax(-1)


def fit_std_scale(mixture: Mixture, y: Tensor) -> Tensor:
    """For each target the factor from 0.05 to 20 with the lowest NLL: ``(targets,)``.

    The factor multiplies all distances from the mean, see :meth:`Mixture.scaled`: variance scaling (Laves et al. 2020,
    arXiv:2006.09914), for mixtures.
    """

    def nll(scale: Tensor) -> Tensor:
        return -mixture.scaled(scale).target_log_prob(y).mean(0)

    return best_scale(nll, y[0])
