"""Metrics over batches, detection of images from elsewhere, and bootstrap errors."""

import numpy as np
import pytest
import torch

from bnn_lightning.evaluation.metrics import as_ranks, estimates, ood_scores, resample, validation_metrics
from tests.likelihoods.helpers import predictions, reference


def test_validation_metrics_in_unequal_batches():
    log_probs, labels = predictions()
    metrics = validation_metrics()
    for part in (slice(0, 7), slice(7, 400), slice(400, 500)):
        metrics.update(log_probs[part], labels[part])
    expected = reference(log_probs.exp().numpy(), labels.numpy())
    for name, value in metrics.compute().items():
        assert value.item() == pytest.approx(expected[name], rel=1e-4), name


def test_metrics_stay_two_after_a_first_batch_of_the_same_number():
    log_probs = torch.full((8, 10), -30.0)
    log_probs[:, 0] = -1.0
    metrics = validation_metrics()
    metrics.update(log_probs, torch.zeros(8, dtype=torch.long))
    assert metrics.compute()["accuracy"] == metrics.compute()["nll"] == 1
    metrics.reset()
    metrics.update(log_probs, torch.ones(8, dtype=torch.long))
    assert metrics.compute()["accuracy"] == 0
    assert metrics.compute()["nll"] == 30


def pairs(inside, outside):
    """AUROC as what it means: the share of pairs in which the outside image scores higher, ties counting half."""
    difference = outside[:, None] - inside[None, :]
    return (difference > 0).mean() + 0.5 * (difference == 0).mean()


def test_ood_scores_against_numpy_with_ties_and_scores_beyond_one():
    inside = torch.randint(0, 30, (300,)).double() / 10
    outside = torch.randint(8, 40, (200,)).double() / 10
    found = ood_scores(*as_ranks(inside, outside))
    assert found["auroc"] == pytest.approx(pairs(inside.numpy(), outside.numpy()), abs=1e-6)
    assert ood_scores(*as_ranks(1000 * inside, 1000 * outside)) == found
    thresholds = np.unique(np.concatenate([inside, outside]))
    flagged = [t for t in thresholds if (outside.numpy() >= t).mean() >= 0.95]
    assert found["fpr95"] == pytest.approx((inside.numpy() >= max(flagged)).mean(), abs=1e-6)
    precision, recall = [], []
    for threshold in thresholds[::-1]:
        hits, alarms = (outside.numpy() >= threshold).sum(), (inside.numpy() >= threshold).sum()
        precision.append(hits / (hits + alarms))
        recall.append(hits / len(outside))
    aupr = np.sum(np.diff([0, *recall]) * np.array(precision))
    assert found["aupr"] == pytest.approx(aupr, abs=1e-6)


def test_images_from_elsewhere_are_the_positives():
    low, high = torch.linspace(0, 0.4, 50), torch.linspace(0.6, 1, 50)
    assert ood_scores(low, high) == pytest.approx({"auroc": 1.0, "aupr": 1.0, "fpr95": 0.0})
    assert ood_scores(high, low)["auroc"] == pytest.approx(0.0)
    assert ood_scores(low, low)["auroc"] == pytest.approx(0.5)


def test_bootstrap_errors_are_standard_errors():
    # The standard error of a mean is known: std / sqrt(n); a bootstrap of 100 has 5 / sqrt(200) of it as its 5 sigma.
    values = torch.randn(400, dtype=torch.float64)

    def mean(generator):
        return {"mean": values[resample(400, generator)].mean().item()}

    found = estimates({"mean": values.mean().item()}, mean)["mean"]
    expected = values.std(correction=0).item() / 20
    assert found.value == values.mean().item()
    assert found.image_error == pytest.approx(expected, rel=5 / 200**0.5)
    assert found.draw_error is None
    assert estimates({"mean": 0.0}, mean, mean)["mean"].draw_error == pytest.approx(expected, rel=5 / 200**0.5)
