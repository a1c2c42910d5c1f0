import numpy as np
import pytest
import torch

from bnn_lightning.evaluation.metrics import as_ranks, estimates, ood_scores, resample, validation_metrics
from bnn_lightning.likelihoods.categorical.scores import (
    adaptive_calibration_error,
    calibration_error,
    risk_coverage,
    scores,
)


def reference(probs, labels):
    """The metrics by numpy, from their definitions."""
    n, rows = len(labels), np.arange(len(labels))
    confidence, predicted = probs.max(1), probs.argmax(1)
    correct = predicted == labels
    bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    ece = sum(
        abs(correct[bins == index].mean() - confidence[bins == index].mean()) * (bins == index).mean()
        for index in np.unique(bins)
    )
    rising = np.argsort(confidence)
    adaptive = sum(
        abs(correct[part].mean() - confidence[part].mean()) * len(part) / n for part in np.array_split(rising, 15)
    )
    wrong = ~correct[rising[::-1]]
    risk = np.cumsum(wrong) / (rows + 1)
    return {
        "accuracy": correct.mean(),
        "nll": -np.log(probs[rows, labels]).mean(),
        "brier": ((probs - np.eye(probs.shape[1])[labels]) ** 2).sum(1).mean(),
        "ece": ece,
        "adaptive_ece": adaptive,
        "aurc": risk.mean(),
        "risk_at_80": wrong[: round(0.8 * n)].mean(),
        "risk_at_90": wrong[: round(0.9 * n)].mean(),
        "risk_at_95": wrong[: round(0.95 * n)].mean(),
    }


def predictions(n=500):
    log_probs = (2 * torch.randn(n, 6, dtype=torch.float64)).log_softmax(-1)
    return log_probs, torch.where(torch.rand(n) < 0.5, log_probs.argmax(-1), torch.randint(0, 6, (n,)))


def test_scores_against_numpy():
    log_probs, labels = predictions()
    expected = reference(log_probs.exp().numpy(), labels.numpy())
    found = scores(log_probs, labels)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-6), name


def test_shuffled_class_columns_change_every_score_but_the_order_of_classes_does_not():
    # T3.8, and the fault of a peer: columns that are not the classes that the labels mean.
    log_probs, labels = predictions()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    found = scores(log_probs, labels)
    assert scores(log_probs[:, order], order.argsort()[labels]) == pytest.approx(found, rel=1e-9)
    assert all(scores(log_probs[:, order], labels)[name] != pytest.approx(found[name], rel=0.01) for name in found)


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


def test_risk_does_not_depend_on_the_order_of_equally_confident_images():
    confidence = torch.tensor([0.9, 0.5, 0.5, 0.5, 0.2])
    correct = torch.tensor([True, False, True, True, False])
    coverage, risk = risk_coverage(confidence, correct)
    order = torch.tensor([4, 3, 2, 1, 0])
    assert torch.equal(risk, risk_coverage(confidence[order], correct[order])[1])
    assert coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert risk.tolist() == pytest.approx([0, 1 / 6, 2 / 9, 1 / 4, 2 / 5])


def test_adaptive_bins_see_what_equal_widths_do_not():
    # Half a crowded bin is overconfident, half underconfident: their gaps cancel in one bin of equal width.
    confidence = torch.cat([torch.full((500,), 0.96), torch.full((500,), 0.98)])
    correct = torch.arange(1000) % 100 < torch.cat([torch.full((500,), 100), torch.full((500,), 94)])
    logits = torch.stack([confidence.log(), (1 - confidence).log()], -1)
    assert scores(logits, (~correct).long())["ece"] < 1e-4  # torchmetrics adds 1,000 terms up in float32
    # The bins of 67 images each miss a whole number of hundreds; the gap is 0.04 in every one but for that.
    assert adaptive_calibration_error(confidence, correct).item() == pytest.approx(0.04, abs=0.01)


def test_a_confidence_of_one_is_in_the_last_bin():
    confidence = torch.cat([torch.ones(50), torch.full((50,), 0.95)])
    right = torch.arange(100) % 50 >= torch.cat([torch.full((50,), 5), torch.zeros(50)])
    assert calibration_error(confidence, right).item() == pytest.approx(0.025, abs=1e-5)  # sums in float32


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
