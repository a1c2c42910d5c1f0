"""Metrics that need not know what a label is: means over examples, OOD detection, bootstrap errors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_specificity_at_sensitivity,
)

from bnn_lightning.likelihoods.base import Likelihood

RESAMPLES = 100
_SUM = torch.float32 if torch.backends.mps.is_available() else torch.float64  # Apple's devices have no float64


class ExampleMean(Metric):
    """The mean over all examples of numbers that come by the batch, in float64."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=_SUM), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Takes one number for each example, ``(batch,)``."""
        self.total += values.sum(dtype=_SUM)
        self.count += values.numel()

    def compute(self) -> Tensor:
        """The mean so far, over all processes."""
        return (self.total / self.count).float()


class ValidationMetrics(nn.Module):
    """Score and nll of the predictive, and the expected nll of its samples, over the batches of a validation.

    Args:
        likelihood: of the labels.
    """

    def __init__(self, likelihood: Likelihood):
        super().__init__()
        self.likelihood = likelihood
        self.score, self.nll = ExampleMean(), ExampleMean()
        self.expected_nll = MeanMetric(nan_strategy="disable")  # by default it leaves NaN out of the mean

    def reset(self) -> None:
        """Forgets all batches."""
        for metric in (self.score, self.nll, self.expected_nll):
            metric.reset()

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Takes a batch of outputs ``(samples, batch, outputs)`` and labels."""
        predictive = self.likelihood.predictive(outputs)
        self.score.update(self.likelihood.example_score(predictive, y))
        self.nll.update(-self.likelihood.log_prob(predictive, y))
        self.expected_nll.update(self.likelihood.nll(outputs, y), len(y))

    def compute(self) -> dict[str, float]:
        """Score and nll so far, over all processes."""
        return {self.likelihood.score: self.score.compute().item(), "nll": self.nll.compute().item()}


def detection_metrics(inside: Tensor, outside: Tensor) -> dict[str, float]:
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
    """Scores as ranks in [0, 1], equal ones with equal ranks, which changes no result of :func:`detection_metrics`.

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
