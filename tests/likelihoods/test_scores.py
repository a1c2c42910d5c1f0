"""Scores of log-probabilities, and selective risk."""

import pytest
import torch

from bnn_lightning.likelihoods.categorical.scores import (
    adaptive_calibration_error,
    calibration_error,
    risk_coverage,
    scores,
)
from tests.likelihoods.helpers import predictions, reference


def test_scores_are_numpys():
    log_probs, labels = predictions()
    expected = reference(log_probs.exp().numpy(), labels.numpy())
    computed = scores(log_probs, labels)
    assert computed.keys() == expected.keys()
    for name, value in computed.items():
        assert value == pytest.approx(expected[name], rel=1e-6), name


def test_shuffled_class_columns_change_every_score_but_the_order_of_classes_does_not():
    # A fault that other code has had: columns that are not the classes that the labels mean.
    log_probs, labels = predictions()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    original = scores(log_probs, labels)
    assert scores(log_probs[:, order], order.argsort()[labels]) == pytest.approx(original, rel=1e-9)
    shuffled = scores(log_probs[:, order], labels)
    assert all(shuffled[name] != pytest.approx(value, rel=0.01) for name, value in original.items())


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
    # Bins of 67 images, from the eleventh of 66: the gap is 0.04 in all but the eighth, with 31 and 36 of the halves.
    expected = 0.04 * (469 + 36 - 31 + 464) / 1000
    assert adaptive_calibration_error(confidence, correct).item() == pytest.approx(expected, abs=1e-6)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert adaptive_calibration_error(confidence[order], correct[order]).item() == pytest.approx(expected, abs=1e-6)


def test_a_confidence_of_one_is_in_the_last_bin():
    confidence = torch.cat([torch.ones(50), torch.full((50,), 0.95)])
    right = torch.arange(100) % 50 >= torch.cat([torch.full((50,), 5), torch.zeros(50)])
    assert calibration_error(confidence, right).item() == pytest.approx(0.025, abs=1e-5)  # sums in float32
