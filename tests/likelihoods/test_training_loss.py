"""The loss with class weights and label smoothing, against formulas in numpy, and that nothing else has them."""

import numpy as np
import pytest
import torch

from bnn_lightning import Categorical, Likelihood
from tests.extension.likelihood import Poisson

SAMPLES, BATCH, CLASSES = 3, 40, 4


def batch():
    return torch.randn(SAMPLES, BATCH, CLASSES), torch.randint(0, CLASSES, (BATCH,))


def test_without_either_the_training_likelihood_is_the_likelihood():
    likelihood = Categorical()
    assert likelihood.for_training() is likelihood
    assert likelihood.departures == []


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 4.0]])
def test_the_training_loss_is_numpys(smoothing, weights):
    outputs, y = batch()
    log_probs = outputs.double().log_softmax(-1).numpy()
    targets = (1 - smoothing) * np.eye(CLASSES)[y.numpy()] + smoothing / CLASSES
    losses = -(targets * log_probs).sum(-1)  # (samples, batch)
    expected = (losses * np.array(weights or [1.0] * CLASSES)[y.numpy()]).mean()
    likelihood = Categorical(label_smoothing=smoothing)
    trained = likelihood.for_training(None if weights is None else torch.tensor(weights))
    assert trained.nll(outputs, y).item() == pytest.approx(expected, rel=1e-5)
    # What is reported has neither.
    plain = -log_probs[:, np.arange(BATCH), y.numpy()].mean()
    assert likelihood.nll(outputs, y).item() == pytest.approx(plain, rel=1e-5)


def test_weights_of_a_batch_are_not_divided_by_their_sum():
    # A batch of the rare class alone: torch's own weights would cancel.
    outputs, y = torch.zeros(1, 5, 2), torch.ones(5, dtype=torch.int64)
    trained = Categorical().for_training(torch.tensor([0.5, 9.0]))
    assert trained.nll(outputs, y).item() == pytest.approx(9 * np.log(2), rel=1e-6)


@pytest.mark.parametrize("label", [-100, -1, CLASSES])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_label_is_passed_over(label, smoothing):
    # Of -100 torch would take the mean without its example.
    outputs, y = batch()
    y[7] = label
    with pytest.raises(IndexError, match=f"^Target {label} is out of bounds"):
        Categorical(label_smoothing=smoothing).for_training().nll(outputs, y)


def test_label_smoothing_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"^label_smoothing must be from 0 to below 1, such as 0\.1, got 1\.0\.$"):
        Categorical(label_smoothing=1.0)


def test_a_likelihood_without_classes_refuses_their_weights():
    likelihood: Likelihood = Poisson()
    assert likelihood.for_training() is likelihood
    with pytest.raises(ValueError, match=r"^class_weights must be null with Poisson, whose labels are no classes\.$"):
        likelihood.for_training(torch.ones(2))
