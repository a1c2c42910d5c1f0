"""Metrics that do not depend on the kind of label: means over examples, OOD detection, bootstrap errors."""

import math
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

RESAMPLES = 100  # bootstrap samples
_SUM_DTYPE = torch.float32 if torch.backends.mps.is_available() else torch.float64  # Apple's devices have no float64


class ExampleMean(Metric):
    """The mean over all examples of values that arrive in batches, summed in float64."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=_SUM_DTYPE), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Adds a batch of values, ``(batch,)``."""
        self.total += values.sum(dtype=_SUM_DTYPE)
        self.count += values.numel()

    def compute(self) -> Tensor:
        """The mean of all values so far, over all processes: a float32 scalar."""
        return (self.total / self.count).float()


class ValidationMetrics(nn.Module):
    """Score and nll of the predictive distribution, and expected nll of its samples, over the batches of a validation.

    Args:
        likelihood: of the labels.
    """

    def __init__(self, likelihood: Likelihood):
        super().__init__()
        self.likelihood = likelihood
        self.score, self.nll = ExampleMean(), ExampleMean()
        self.expected_nll = MeanMetric(nan_strategy="disable")  # the default skips NaN, which would hide a diverged run

    def reset(self) -> None:
        """Removes all batches."""
        for metric in (self.score, self.nll, self.expected_nll):
            metric.reset()

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Adds a batch of outputs ``(samples, batch, outputs)`` and labels ``(batch, ...)``."""
        self.likelihood.check_labels(y, outputs.shape[-1])
        predictive = self.likelihood.predictive(outputs)
        self.score.update(self.likelihood.example_score(predictive, y))
        self.nll.update(-self.likelihood.log_prob(predictive, y))
        self.expected_nll.update(self.likelihood.nll(outputs, y), len(y))

    def compute(self) -> dict[str, float]:
        """Score and nll of all batches so far, over all processes; the nll in nats per example."""
        return {self.likelihood.score: self.score.compute().item(), "nll": self.nll.compute().item()}


def detection_metrics(inside: Tensor, outside: Tensor) -> dict[str, float]:
    """AUROC, AUPR and FPR95 of a score that should be higher for out-of-distribution (OOD) inputs than for others.

    nan where a score is nan: outputs that are not finite have no place in the order.

    OOD inputs are the positives. AUROC counts ties half; AUPR is the average precision; FPR95 is the false-positive
    rate at the threshold that detects 95 % of the OOD inputs. All are from 0 to 1.

    Args:
        inside: scores of in-distribution inputs, ``(inputs,)``, of any size: only their order counts.
        outside: scores of OOD inputs, likewise.
    """
    if torch.cat([inside, outside]).isnan().any():  # which sorting would put above all others
        return dict.fromkeys(("auroc", "aupr", "fpr95"), math.nan)
    ranks = torch.cat(_as_ranks(inside, outside))
    is_outside = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).long()
    specificity, _ = binary_specificity_at_sensitivity(ranks, is_outside, 0.95)
    return {
        "auroc": binary_auroc(ranks, is_outside).item(),
        "aupr": binary_average_precision(ranks, is_outside).item(),
        "fpr95": 1 - specificity.item(),
    }


def _as_ranks(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """Scores as ranks in [0, 1], with equal ranks for equal scores.

    torchmetrics applies a sigmoid to scores outside of [0, 1], which rounds different scores to the same value.
    """
    distinct, ranks = torch.cat([inside, outside]).unique(return_inverse=True)
    ranks = ranks.double() / max(1, len(distinct) - 1)
    return ranks[: len(inside)], ranks[len(inside) :]


@dataclass(frozen=True)
class Estimate:
    """A metric with its two standard errors, both by bootstrap.

    Args:
        value: of the metric.
        image_error: the standard error from the test images, which are a sample; None where it was not computed.
        draw_error: the standard error from the draws of the network's samples; None where nothing was drawn.
    """

    value: float
    image_error: float | None = None
    draw_error: float | None = None


def estimates(
    values: Mapping[str, float],
    on_images: Callable[[torch.Generator], Mapping[str, float]],
    on_draws: Callable[[torch.Generator], Mapping[str, float]] | None = None,
) -> dict[str, Estimate]:
    """Each metric with its standard errors: the standard deviations over :data:`RESAMPLES` bootstrap samples.

    Args:
        values: the metrics on all images and draws.
        on_images: computes the metrics on a bootstrap sample of the images, drawn with the generator.
        on_draws: computes metrics on all images with a bootstrap sample of the draws; those that it leaves out have no
            error from the draws.
    """

    def bootstrap_stds(measure: Callable[[torch.Generator], Mapping[str, float]]) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        resampled = [measure(generator) for _ in range(RESAMPLES)]
        names = [name for name in values if name in resampled[0]]
        return {name: torch.tensor([metrics[name] for metrics in resampled]).double().std().item() for name in names}

    image_errors = bootstrap_stds(on_images)
    draw_errors = {} if on_draws is None else bootstrap_stds(on_draws)
    return {name: Estimate(value, image_errors[name], draw_errors.get(name)) for name, value in values.items()}


def resample(count: int, generator: torch.Generator) -> Tensor:
    """Indices of a bootstrap sample, drawn with replacement from ``range(count)``: ``(count,)``."""
    return torch.randint(count, (count,), generator=generator)
