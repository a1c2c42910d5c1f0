"""Calibration of predicted class probabilities on labelled images, the calibration half of the hold-out.

A temperature, which predictions to accept for a target risk, and prediction sets with a target coverage.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

CONFIDENCE_LEVEL = 0.95
"""How sure the bound on the risk of accepted predictions is, over calibration sets."""


@dataclass(frozen=True)
class AcceptRule:
    """Accept a prediction whose confidence is at least ``threshold``.

    On the calibration images ``coverage`` of them were accepted, with the error rate ``risk``; ``bound`` is above the
    true error rate of accepted predictions with probability :data:`CONFIDENCE_LEVEL`. A threshold of infinity accepts
    nothing: no bound was low enough.
    """

    threshold: float
    coverage: float
    risk: float
    bound: float


@dataclass(frozen=True)
class Calibration:
    """The calibration of one way of predicting.

    Args:
        temperature: T of log p / T, made a distribution again: above 1 makes predictions less sure.
        confidence: of each calibration image the probability of the predicted class; falling.
        correct: whether that class is the label, in the same order.
        label_prob: of each calibration image the probability of its label; rising.

    The temperature has seen the labels, so that bounds on probabilities at it would not be exact: those here are of the
    probabilities as they were predicted.
    """

    temperature: float
    confidence: Tensor
    correct: Tensor
    label_prob: Tensor

    @classmethod
    def fit(cls, log_probs: Tensor, labels: Tensor) -> Self:
        """From log predictive probabilities ``(images, classes)`` and labels ``(images,)``."""
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
        """The rule that accepts most, while the error rate of what it accepts is bounded by ``target_risk``.

        Selection with guaranteed risk (Geifman & El-Yaniv 2017, arXiv:1705.08500, algorithm 1): a binary search over
        thresholds, each with a binomial bound at its share of the error probability.
        """
        if not 0 < target_risk < 1:
            raise ValueError(f"target_risk must be an error rate between 0 and 1, such as 0.01, got {target_risk}.")
        images = len(self.confidence)
        mistakes = (~self.correct).long().cumsum(0)
        steps = max(1, math.ceil(math.log2(images)))
        delta = (1 - CONFIDENCE_LEVEL) / steps
        best = AcceptRule(math.inf, 0.0, 0.0, 0.0)
        low, high = 1, images
        for _ in range(steps):
            count = (low + high + 1) // 2
            # All images of one confidence are accepted together.
            threshold = self.confidence[count - 1]
            accepted = int((self.confidence >= threshold).sum())
            wrong = int(mistakes[accepted - 1])
            bound = binomial_upper_bound(wrong, accepted, delta)
            if bound <= target_risk:
                if accepted / images > best.coverage:
                    best = AcceptRule(threshold.item(), accepted / images, wrong / accepted, bound)
                low = count
            else:
                high = count - 1
            if low >= high:
                break
        return best

    def set_threshold(self, alpha: float) -> float:
        """The probability above which a class belongs to the prediction set that misses the label with rate ``alpha``.

        Split conformal prediction with the score 1 - p(label) (Sadinle et al. 2019): the floor(alpha (n + 1))-th
        smallest probability of a label. Holds for images like those of the calibration, averaged over all of them.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, such as 0.05, got {alpha}.")
        place = math.floor(alpha * (len(self.label_prob) + 1))
        return 0.0 if place == 0 else self.label_prob[place - 1].item()

    def record(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        return {
            "temperature": self.temperature,
            "confidence": self.confidence,
            "correct": self.correct,
            "label_prob": self.label_prob,
        }


def scaled(log_probs: Tensor, temperature: float) -> Tensor:
    """Log-probabilities at a temperature: log softmax(log p / T). Guo et al. 2017, for a predictive that is a mean."""
    return F.log_softmax(log_probs / temperature, -1)


def fit_temperature(log_probs: Tensor, labels: Tensor) -> float:
    """The temperature from 0.05 to 20 with the lowest NLL of ``labels``: it is convex in 1/T."""
    log_probs = log_probs.double()

    def nll(log_temperature: float) -> float:
        return F.nll_loss(scaled(log_probs, math.exp(log_temperature)), labels).item()

    golden = (math.sqrt(5) - 1) / 2
    low, high = math.log(0.05), math.log(20)
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = nll(left), nll(right)
    while high - low > 1e-5:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = nll(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = nll(right)
    return math.exp((low + high) / 2)


def binomial_upper_bound(wrong: int, trials: int, delta: float) -> float:
    """The rate r at which ``wrong`` or fewer mistakes in ``trials`` have probability ``delta`` (Clopper & Pearson)."""
    if wrong >= trials:
        return 1.0
    k = torch.arange(wrong + 1, dtype=torch.float64)
    log_ways = math.lgamma(trials + 1) - torch.lgamma(k + 1) - torch.lgamma(trials - k + 1)

    low, high = wrong / trials, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        tail = (log_ways + k * math.log(rate) + (trials - k) * math.log1p(-rate)).logsumexp(0).exp().item()
        low, high = (rate, high) if tail > delta else (low, rate)
    return high
