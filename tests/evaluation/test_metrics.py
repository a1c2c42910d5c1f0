"""Metrics over batches, detection of images from elsewhere, and bootstrap errors."""

import numpy as np
import pytest
import torch

from bnn_lightning import Categorical
from bnn_lightning.evaluation.metrics import ExampleMean, detection_metrics, estimates, resample
from tests.likelihoods.helpers import predictions, reference


def test_means_do_not_depend_on_the_batches():
    log_probs, labels = predictions()
    likelihood = Categorical()
    metrics = {"accuracy": ExampleMean(), "nll": ExampleMean()}
    for part in (slice(0, 7), slice(7, 400), slice(400, 500)):
        predictive = {"log_probs": log_probs[part]}
        metrics["accuracy"].update(likelihood.example_score(predictive, labels[part]))
        metrics["nll"].update(-likelihood.log_prob(predictive, labels[part]))
    expected = reference(log_probs.exp().numpy(), labels.numpy())
    for name, metric in metrics.items():
        assert metric.compute().item() == pytest.approx(expected[name], rel=1e-4), name


def pairs(inside, outside):
    """AUROC as what it means: the share of pairs in which the outside image scores higher, ties counting half."""
    difference = outside[:, None] - inside[None, :]
    return (difference > 0).mean() + 0.5 * (difference == 0).mean()


def test_ood_scores_are_numpys_with_ties_and_scores_beyond_one():
    inside = torch.randint(0, 30, (300,)).double() / 10
    outside = torch.randint(8, 40, (200,)).double() / 10
    measured = detection_metrics(inside, outside)
    assert measured["auroc"] == pytest.approx(pairs(inside.numpy(), outside.numpy()), abs=1e-6)
    assert detection_metrics(1000 * inside, 1000 * outside) == measured
    thresholds = np.unique(np.concatenate([inside, outside]))
    flagged = [t for t in thresholds if (outside.numpy() >= t).mean() >= 0.95]
    assert measured["fpr95"] == pytest.approx((inside.numpy() >= max(flagged)).mean(), abs=1e-6)
    precision, recall = [], []
    for threshold in thresholds[::-1]:
        hits, alarms = (outside.numpy() >= threshold).sum(), (inside.numpy() >= threshold).sum()
        precision.append(hits / (hits + alarms))
        recall.append(hits / len(outside))
    aupr = np.sum(np.diff([0, *recall]) * np.array(precision))
    assert measured["aupr"] == pytest.approx(aupr, abs=1e-6)


def test_images_from_elsewhere_are_the_positives():
    low, high = torch.linspace(0, 0.4, 50), torch.linspace(0.6, 1, 50)
    assert detection_metrics(low, high) == pytest.approx({"auroc": 1.0, "aupr": 1.0, "fpr95": 0.0})
    assert detection_metrics(high, low)["auroc"] == pytest.approx(0.0)
    assert detection_metrics(low, low)["auroc"] == pytest.approx(0.5)
    # What is not a number is not found: it has no place in the order.
    for inside, outside in ((low, high * torch.nan), (low * torch.nan, high)):
        assert all(np.isnan(value) for value in detection_metrics(inside, outside).values())


def test_bootstrap_errors_are_standard_errors():
    # The standard error of a mean is known: std / sqrt(n); a bootstrap of 100 has 5 / sqrt(200) of it as its 5 sigma.
    values = torch.randn(400, dtype=torch.float64)

    def mean(generator):
        return {"mean": values[resample(400, generator)].mean().item()}

    estimate = estimates({"mean": values.mean().item()}, mean)["mean"]
    expected = values.std(correction=0).item() / 20
    assert estimate.value == values.mean().item()
    assert estimate.image_error == pytest.approx(expected, rel=5 / 200**0.5)
    assert estimate.draw_error is None
    assert estimates({"mean": 0.0}, mean, mean)["mean"].draw_error == pytest.approx(expected, rel=5 / 200**0.5)
