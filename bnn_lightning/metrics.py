"""What a predictive distribution is judged by: accuracy, proper scores, calibration, selective risk, OOD detection.

All are functions of log-probabilities ``(images, classes)`` and labels ``(images,)``, or of one score for each image.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_specificity_at_sensitivity,
)

BINS = 15
COVERAGES = (80, 90, 95)
RESAMPLES = 100
_SUM = torch.float32 if torch.backends.mps.is_available() else torch.float64  # Apple's devices have no float64


class ExampleMean(Metric):
    """The mean over all examples of a function of log-probabilities and labels that gives one number an example."""

    total: Tensor
    count: Tensor

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.function = function
        self.add_state("total", torch.zeros((), dtype=_SUM), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, log_probs: Tensor, labels: Tensor) -> None:
        self.total += self.function(log_probs, labels).sum(dtype=_SUM)
        self.count += labels.numel()

    def compute(self) -> Tensor:
        return (self.total / self.count).float()


def validation_metrics() -> MetricCollection:
    """Accuracy and NLL."""
    # Torchmetrics would take two metrics for one for good where their first batch came to the same number.
    return MetricCollection(
        {"accuracy": ExampleMean(correct), "nll": ExampleMean(negative_log_likelihood)}, compute_groups=False
    )


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


def calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    """ECE: the gap between confidence and accuracy in 15 bins of equal width (Guo et al. 2017, eq. 3)."""
    # A confidence of exactly 1 belongs to the last bin; torchmetrics would give it one of its own.
    below_one = confidence.float().clamp(max=1 - 2**-24)
    return binary_calibration_error(below_one, correct.long(), BINS, "l1", validate_args=False)


def adaptive_calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    """The same in 15 bins with equally many images (Nguyen & O'Connor 2015), which sees into a crowded last bin."""
    gaps = (confidence - correct.to(confidence.dtype))[confidence.argsort()]
    return torch.stack([part.sum().abs() for part in gaps.tensor_split(BINS)]).sum() / len(gaps)


def risk_coverage(confidence: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage 1/n ... 1 and the error rate among as many of the most confident predictions; ties count their mean."""
    confidence, order = confidence.sort(descending=True)
    _, group, sizes = torch.unique_consecutive(confidence, return_inverse=True, return_counts=True)
    wrong = (~correct.bool()).double()[order]
    mean_of_group = torch.zeros(len(sizes), dtype=wrong.dtype).index_add_(0, group, wrong) / sizes
    count = torch.arange(1, len(wrong) + 1, dtype=wrong.dtype)
    return count / len(wrong), mean_of_group[group].cumsum(0) / count


def scores(log_probs: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, NLL, Brier score, ECE, adaptive ECE, AURC and the risk at 80, 90 and 95 % coverage.

    AURC is the mean risk over all coverages (Geifman & El-Yaniv 2017), with the confidence as the order.
    """
    log_confidence, predicted = log_probs.max(-1)
    confidence, right = log_confidence.exp(), predicted == labels
    _, risk = risk_coverage(log_confidence, right)
    found = {
        "accuracy": right.float().mean(),
        "nll": negative_log_likelihood(log_probs, labels).mean(),
        "brier": brier_score(log_probs, labels).mean(),
        "ece": calibration_error(confidence, right),
        "adaptive_ece": adaptive_calibration_error(confidence, right),
        "aurc": risk.mean(),
    }
    found |= {f"risk_at_{coverage}": risk[round(len(risk) * coverage / 100) - 1] for coverage in COVERAGES}
    return {name: value.item() for name, value in found.items()}


def ood_scores(inside: Tensor, outside: Tensor) -> dict[str, float]:
    """How well a score tells images from elsewhere, which should score higher, from those like the training images.

    AUROC (ties count half), AUPR (average precision) and FPR95, the share of the inside images that is flagged by the
    threshold that flags 95 % of the outside ones. Images from elsewhere are the positives.
    """
    ranks = torch.cat(as_ranks(inside, outside))
    is_outside = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).long()
    specificity, _ = binary_specificity_at_sensitivity(ranks, is_outside, 0.95)
    return {
        "auroc": binary_auroc(ranks, is_outside).item(),
        "aupr": binary_average_precision(ranks, is_outside).item(),
        "fpr95": 1 - specificity.item(),
    }


def as_ranks(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """Scores as ranks in [0, 1], equal ones with equal ranks, which changes no result of :func:`ood_scores`.

    torchmetrics would put scores beyond that range through a sigmoid, which rounds them together.
    """
    distinct, ranks = torch.cat([inside, outside]).unique(return_inverse=True)
    ranks = ranks.double() / max(1, len(distinct) - 1)
    return ranks[: len(inside)], ranks[len(inside) :]


@dataclass(frozen=True)
class Estimate:
    """A measured number with its two standard errors.

    ``image_error`` is that of the images, which are a sample; ``draw_error`` that of the weight draws. Both by
    bootstrap; None where it was not measured, or nothing was drawn.
    """

    value: float
    image_error: float | None = None
    draw_error: float | None = None


def estimates(
    values: Mapping[str, float],
    on_images: Callable[[torch.Generator], Mapping[str, float]],
    on_draws: Callable[[torch.Generator], Mapping[str, float]] | None = None,
) -> dict[str, Estimate]:
    """``values`` with the standard deviations of the same functions over bootstrap samples.

    Args:
        values: measured once on everything.
        on_images: the same measured on a bootstrap sample of the images.
        on_draws: the same measured on all images with a bootstrap sample of the draws.
    """

    def spread(measure: Callable[[torch.Generator], Mapping[str, float]]) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        rows = [measure(generator) for _ in range(RESAMPLES)]
        return {name: torch.tensor([row[name] for row in rows]).double().std().item() for name in values}

    of_images = spread(on_images)
    of_draws = {} if on_draws is None else spread(on_draws)
    return {name: Estimate(value, of_images[name], of_draws.get(name)) for name, value in values.items()}


def resample(count: int, generator: torch.Generator) -> Tensor:
    """Indices of a bootstrap sample: as many as there are, some missing and others repeated."""
    return torch.randint(count, (count,), generator=generator)
