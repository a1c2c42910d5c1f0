"""What a predictive distribution is judged by, as torchmetrics: accuracy, NLL, Brier score, calibration error.

Every metric is updated with log-probabilities ``(batch, classes)`` and labels ``(batch,)``.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryCalibrationError


class ExampleMean(Metric):
    """The mean over all examples of a function of log-probabilities and labels that gives one number an example."""

    total: Tensor
    count: Tensor

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.function = function
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, log_probs: Tensor, labels: Tensor) -> None:
        self.total += self.function(log_probs, labels).double().sum()
        self.count += labels.numel()

    def compute(self) -> Tensor:
        return (self.total / self.count).float()


class CalibrationError(BinaryCalibrationError):
    """Expected calibration error of the predicted class: 15 equal-width bins of confidence (Guo et al. 2017, eq. 3)."""

    def __init__(self) -> None:
        super().__init__(n_bins=15, norm="l1", validate_args=False)

    def update(self, log_probs: Tensor, labels: Tensor) -> None:
        log_confidence, predicted = log_probs.max(-1)
        super().update(log_confidence.exp(), predicted == labels)


def correct(log_probs: Tensor, labels: Tensor) -> Tensor:
    """1 where the most probable class is the label."""
    return log_probs.argmax(-1) == labels


def negative_log_likelihood(log_probs: Tensor, labels: Tensor) -> Tensor:
    """-log p(label), in nats."""
    return -log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def brier_score(log_probs: Tensor, labels: Tensor) -> Tensor:
    """sum_k (p_k - [k is the label])^2, from 0 to 2 (Brier 1950)."""
    probs = log_probs.exp()
    return probs.square().sum(-1) - 2 * probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1) + 1


def validation_metrics() -> MetricCollection:
    """Accuracy and NLL."""
    return MetricCollection({"accuracy": ExampleMean(correct), "nll": ExampleMean(negative_log_likelihood)})


def test_metrics() -> MetricCollection:
    """Accuracy, NLL, ECE and Brier score."""
    return MetricCollection(
        {
            "accuracy": ExampleMean(correct),
            "nll": ExampleMean(negative_log_likelihood),
            "ece": CalibrationError(),
            "brier": ExampleMean(brier_score),
        }
    )
