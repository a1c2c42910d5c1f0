"""Calibration of class probabilities: temperature, accept rule with bounded risk, conformal prediction sets.

It is fitted on labelled images, the calibration half of the hold-out (unused for training and model selection).
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor

from bnn_lightning.likelihoods.search import best_scale
from bnn_lightning.likelihoods.selective import CONFIDENCE_LEVEL, AcceptRule, accept_rule, binomial_upper_bound


@dataclass(frozen=True)
class Calibration:
    """The calibration of predictions from samples drawn in one way (weight draws, local draws, mean weights).

    Accept rule and prediction sets use the predicted probabilities, not those at the temperature: the temperature was
    fitted on the same labels, so guarantees at it would not be exact.

    Args:
        temperature: T of softmax(log p / T); above 1 it makes predictions less confident.
        confidence: the probability of the predicted class of each calibration image, ``(images,)``, in falling order.
        correct: whether that class is the label, ``(images,)``, in the same order.
        label_prob: the probability of the label of each calibration image, ``(images,)``, in rising order.
    """

    temperature: float
    confidence: Tensor
    correct: Tensor
    label_prob: Tensor

    @classmethod
    def fit(cls, log_probs: Tensor, labels: Tensor) -> Self:
        """The calibration from log predictive probabilities ``(images, classes)`` and labels ``(images,)``.

        Raises:
            ValueError: when there are no images.
        """
        if len(labels) == 0:
            raise ValueError("labels must be of one calibration image or more, got none.")
        probs = log_probs.double().exp()
        confidence, predicted = probs.max(-1)
        order = confidence.argsort(descending=True, stable=True)
        return cls(
            fit_temperature(log_probs, labels),
            confidence[order],
            (predicted == labels)[order],
            probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1).sort().values,
        )

    def accept_rule(self, target_risk: float) -> AcceptRule:
        """The rule of :func:`bnn_lightning.likelihoods.selective.accept_rule`, by the probability of the class.

        Raises:
            ValueError: when ``target_risk`` is not between 0 and 1.
        """
        return accept_rule(self.confidence, self.correct, target_risk)

    def prediction_set_threshold(self, alpha: float) -> float:
        """The lowest probability of a class in the prediction set, for sets that miss the label at rate ``alpha``.

        Split conformal prediction with the score 1 - p(label) (Sadinle et al. 2019): the floor(alpha (n + 1))-th
        smallest probability of a label among n calibration images. The rate holds on average over images from the same
        distribution as the calibration images.

        Raises:
            ValueError: when ``alpha`` is not between 0 and 1.
        """
        rank = self._rank(alpha)
        return 0.0 if rank == 0 else self.label_prob[rank - 1].item()

    def prediction_set_bound(self, alpha: float) -> float:
        """The rate below which sets at that threshold miss the label, with probability 0.95 over calibration sets.

        The rate at one calibration set has the distribution Beta(l, n + 1 - l), l = floor(alpha (n + 1)) (Vovk 2012).
        """
        rank = self._rank(alpha)
        images = len(self.label_prob)
        return 0.0 if rank == 0 else binomial_upper_bound(rank - 1, images, 1 - CONFIDENCE_LEVEL)

    def _rank(self, alpha: float) -> int:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, such as 0.05, got {alpha}.")
        return math.floor(round(alpha * (len(self.label_prob) + 1), 9))  # .29 x 100 is a little below 29

    def record(self) -> dict[str, Any]:
        """The fields by name, plain values and tensors, for a checkpoint."""
        return {
            "temperature": self.temperature,
            "confidence": self.confidence,
            "correct": self.correct,
            "label_prob": self.label_prob,
        }


def scaled(log_probs: Tensor, temperature: float | Tensor) -> Tensor:
    """Log-probabilities at a temperature T, log softmax(log p / T): ``(..., classes)``.

    The temperature scaling of Guo et al. 2017, applied to the log predictive probabilities in place of logits.
    """
    return F.log_softmax(log_probs / temperature, -1)


def fit_temperature(log_probs: Tensor, labels: Tensor) -> float:
    """The temperature from 0.05 to 20 with the lowest NLL of ``labels``.

    The NLL is convex in 1/T, so it has one minimum. Shapes are those of :meth:`Calibration.fit`.
    """
    log_probs = log_probs.double()

    def nll(temperature: Tensor) -> Tensor:
        return F.nll_loss(scaled(log_probs, temperature), labels)

    return best_scale(nll, log_probs.new_ones(())).item()
