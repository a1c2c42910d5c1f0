"""Categorical, the likelihood of classification: outputs are logits, a label is a class."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.likelihoods.base import Likelihood, Predictive, Uninformed
from bnn_lightning.likelihoods.categorical.calibration import Calibration, scaled
from bnn_lightning.likelihoods.categorical.checks import check_labels, check_logits_and_labels
from bnn_lightning.likelihoods.categorical.classes import (
    confusion_matrix,
    majority_caveats,
    missing_caveats,
    names_of_classes,
)
from bnn_lightning.likelihoods.categorical.credibility import ece_caveats, temperature_caveats
from bnn_lightning.likelihoods.categorical.decisions import decision_rule
from bnn_lightning.likelihoods.categorical.predictions import ClassPredictions, Thresholds
from bnn_lightning.likelihoods.categorical.predictive import (
    expected_entropy,
    log_predictive,
    probabilities,
    summary,
)
from bnn_lightning.likelihoods.categorical.scores import correct, log_likelihood, ood_scores, scores

_SCALED_METRICS = ("nll", "brier", "ece", "adaptive_ece")


# Torch passes over the label -100 without a word, and refuses all others that are no class; this number is no label.
_cross_entropy = partial(F.cross_entropy, ignore_index=torch.iinfo(torch.int32).min)


@dataclass(frozen=True)
class Categorical(Likelihood):
    """p(y | logits) = softmax(logits)_y for a class y, a whole number from 0 to K - 1, with K outputs.

    Methods and shapes are those of :class:`~bnn_lightning.Likelihood`; labels are int64 ``(batch,)``. The predictive is
    ``{"log_probs": (batch, classes)}``, in nats.

    Args:
        label_smoothing: the share of each label that training spreads evenly over all classes, from 0 to below 1
            (Szegedy et al. 2016, arXiv:1512.00567). The loss is then no likelihood; everything else is without it.
    """

    label_kind = "classes"
    score = "accuracy"
    headline = ("accuracy", "nll", "ece")
    calibration_type = Calibration

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be from 0 to below 1, such as 0.1, got {self.label_smoothing}.")

    @property
    def departures(self) -> list[str]:
        return [f"label smoothing {self.label_smoothing:g}"] if self.label_smoothing else []

    def for_training(self, class_weights: Tensor | None = None) -> Likelihood:
        if class_weights is None and not self.label_smoothing:
            return self
        return _WeightedSmoothed(self.label_smoothing, class_weights)

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        logits = outputs.flatten(0, 1)
        # In half precision small probabilities are rounded to 0.
        return _cross_entropy(logits.to(at_least_float32(logits)), y.repeat(len(outputs)))

    def output_hessian(self, outputs: Tensor, y: Tensor) -> Tensor:
        probs = outputs.to(at_least_float32(outputs)).softmax(-1)
        return torch.diag_embed(probs) - probs.unsqueeze(-1) * probs.unsqueeze(-2)

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

    def check_labels(self, y: Tensor, num_outputs: int) -> None:
        check_labels(y, num_outputs)

    def training_score(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.argmax(-1) == y).float().mean()

    def summary(self, outputs: Tensor) -> Predictive:
        return summary(outputs)

    def exported(self, outputs: Tensor, calibration: Calibration | None = None) -> Predictive:
        """Probabilities; entropies in nats, whole, expected and mutual information; the traces; calibrated confidence.

        ``probabilities`` and ``log_probs`` are ``(batch, classes)``, all others ``(batch,)``, see
        :func:`~bnn_lightning.likelihoods.categorical.predictive.summary`. ``calibrated_confidence``, the probability of
        the predicted class at the calibrated temperature, is there where a calibration is.
        """
        parts = summary(outputs)
        log_probs = parts.pop("log_probs")
        whole = {"probabilities": log_probs.exp(), "log_probs": log_probs, "entropy": parts.pop("entropy")}
        whole |= {"expected_entropy": expected_entropy(outputs)} | parts
        if calibration is not None:
            whole["calibrated_confidence"] = scaled(log_probs, calibration.temperature).exp().amax(-1)
        return whole

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

    def confusion(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor:
        return confusion_matrix(predictive["log_probs"], y)

    def caveats(
        self, predictive: Mapping[str, Tensor], y: Tensor, calibration: Calibration | None, class_names: Sequence[str]
    ) -> list[str]:
        log_probs = predictive["log_probs"]
        names = names_of_classes(class_names, log_probs.shape[-1])
        confusion = confusion_matrix(log_probs, y)
        caveats = missing_caveats(confusion, names) + majority_caveats(confusion, names)
        caveats += ece_caveats(log_probs.amax(-1).exp())
        return caveats + (temperature_caveats(calibration) if calibration is not None else [])

    def ood_scores(self, summary: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return ood_scores(summary)

    def calibrate(self, predictive: Mapping[str, Tensor], y: Tensor) -> Calibration:
        return Calibration.fit(predictive["log_probs"], y)

    def thresholds(
        self, calibration: Calibration | None, target_risk: float, alpha: float, target_error: float | None = None
    ) -> Thresholds | None:
        return Thresholds.of(calibration, target_risk, alpha)

    def predictions(
        self,
        summary: Mapping[str, Tensor],
        class_names: Sequence[str],
        thresholds: Thresholds | None,
        files: Sequence[str] | None = None,
        labels: Tensor | None = None,
    ) -> ClassPredictions:
        return ClassPredictions.of(summary, class_names, thresholds, files, labels)

    def decision_rule(
        self, calibration: Calibration | None, target_risk: float, alpha: float, target_error: float | None = None
    ) -> str:
        return decision_rule(calibration, target_risk, alpha)


@dataclass(frozen=True)
class _WeightedSmoothed(Categorical):
    """Whose nll is the training loss: mean over examples of the weight of the class times the nll of smoothed labels.

    Args:
        class_weights: ``(classes,)``, on the device of the outputs; None weighs all alike.
    """

    is_density = False

    class_weights: Tensor | None = None

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        logits, labels = outputs.flatten(0, 1), y.repeat(len(outputs))
        logits = logits.to(at_least_float32(logits))
        losses = _cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        # Not divided by the weights of a batch, which torch's own weights are: that would be another loss each step.
        return (losses if self.class_weights is None else losses * self.class_weights[labels]).mean()

    def output_hessian(self, outputs: Tensor, y: Tensor) -> Tensor:
        # Smoothing is linear in the outputs, and has no second derivative.
        hessian = super().output_hessian(outputs, y)
        return hessian if self.class_weights is None else hessian * self.class_weights[y, None, None]
