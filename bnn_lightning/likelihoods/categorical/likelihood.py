"""Categorical, the likelihood of classification: outputs are logits, a label is a class."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.likelihoods.base import Likelihood, Predictive, Uninformed
from bnn_lightning.likelihoods.categorical.calibration import Calibration, scaled
from bnn_lightning.likelihoods.categorical.checks import check_logits_and_labels
from bnn_lightning.likelihoods.categorical.decisions import decision_rule, decisions
from bnn_lightning.likelihoods.categorical.predictive import log_predictive, probabilities, summary
from bnn_lightning.likelihoods.categorical.scores import correct, log_likelihood, ood_scores, scores

_SCALED_METRICS = ("nll", "brier", "ece", "adaptive_ece")


@dataclass(frozen=True)
class Categorical(Likelihood):
    """p(y | logits) = softmax(logits)_y for a class y, a whole number from 0 to K - 1, with K outputs.

    Methods and shapes are those of :class:`~bnn_lightning.Likelihood`; labels are int64 ``(batch,)``. The predictive is
    ``{"log_probs": (batch, classes)}``, in nats.
    """

    score = "accuracy"
    headline = ("accuracy", "nll", "ece")
    calibration_type = Calibration

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        logits = outputs.flatten(0, 1)
        # In half precision small probabilities are rounded to 0.
        return F.cross_entropy(logits.to(at_least_float32(logits)), y.repeat(len(outputs)))

    def predictive(self, outputs: Tensor) -> Predictive:
        return {"log_probs": log_predictive(outputs)}

    def log_prob(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor:
        return log_likelihood(predictive["log_probs"], y)

    def example_score(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor:
        return correct(predictive["log_probs"], y)

    def uninformed(self, num_outputs: int) -> Uninformed:
        return Uninformed(math.log(num_outputs), 1 / num_outputs)

    def check(self, outputs: Tensor, y: Tensor, num_classes: int | None) -> None:
        check_logits_and_labels(outputs, y, num_classes)

    def training_score(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.argmax(-1) == y).float().mean()

    def summary(self, outputs: Tensor) -> Predictive:
        return summary(outputs)

    def mixture(self, outputs: Tensor) -> Callable[[Tensor], Predictive]:
        probs = probabilities(outputs)
        smallest_prob = torch.finfo(probs.dtype).tiny  # never log(0)

        def predictive(counts: Tensor) -> Predictive:
            mean = torch.tensordot(counts.to(probs.dtype) / len(probs), probs, 1)
            return {"log_probs": mean.clamp_min(smallest_prob).log()}

        return predictive

    def metrics(self, predictive: Mapping[str, Tensor], y: Tensor, calibration: Any = None) -> dict[str, float]:
        metrics = scores(predictive["log_probs"], y)
        if calibration is not None:
            at_temperature = scores(scaled(predictive["log_probs"], calibration.temperature), y)
            metrics |= {f"{name}_scaled": at_temperature[name] for name in _SCALED_METRICS}
        return metrics

    def ood_scores(self, summary: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return ood_scores(summary)

    def calibrate(self, predictive: Mapping[str, Tensor], y: Tensor) -> Calibration:
        return Calibration.fit(predictive["log_probs"], y)

    def decisions(
        self,
        summary: Mapping[str, Tensor],
        names: Sequence[str],
        class_names: Sequence[str],
        calibration: Calibration | None,
        target_risk: float,
        alpha: float,
    ) -> list[dict[str, Any]]:
        return decisions(summary, names, class_names, calibration, target_risk, alpha)

    def decision_rule(self, calibration: Calibration | None, target_risk: float, alpha: float) -> str:
        return decision_rule(calibration, target_risk, alpha)
