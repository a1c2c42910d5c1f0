import math

import numpy as np
import pytest
import torch
from torch import nn

from bnn_lightning import (
    BBB,
    bayesianize,
    log_predictive,
    mutual_information,
    predictive_entropy,
    sample_logits,
    sampling,
)

# T3.9: four samples of one image, three classes.
LOGITS = torch.tensor([[2, 0, -1], [1, 1, 0], [0, 2, 0], [3, -1, 0]], dtype=torch.float64).unsqueeze(1)


def test_oracle():
    assert log_predictive(LOGITS).exp().squeeze(0).tolist() == pytest.approx([0.57721502, 0.33516197, 0.08762302])
    assert predictive_entropy(LOGITS).item() == pytest.approx(0.89691918)
    assert mutual_information(LOGITS).item() == pytest.approx(0.27654179)


def test_against_numpy():
    logits = torch.randn(7, 5, 4)
    exp = np.exp(logits.double().numpy())
    probs = exp / exp.sum(-1, keepdims=True)
    mean = probs.mean(0)
    entropy = -(mean * np.log(mean)).sum(-1)
    expected = -(probs * np.log(probs)).sum(-1).mean(0)
    np.testing.assert_allclose(log_predictive(logits).numpy(), np.log(mean), rtol=1e-5)
    np.testing.assert_allclose(predictive_entropy(logits).numpy(), entropy, rtol=1e-5)
    np.testing.assert_allclose(mutual_information(logits).numpy(), entropy - expected, atol=1e-6)
    # T3.3
    assert (mutual_information(logits) >= 0).all()
    assert (predictive_entropy(logits) <= math.log(4) + 1e-6).all()


def test_log_mean_exp_gradient_is_the_softmax_over_samples():
    # 7.2: the maximum inside logsumexp carries no gradient of its own.
    logits = torch.randn(5, 1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_predictive, logits)
    log_probs = logits.detach().log_softmax(-1).requires_grad_()
    torch.logsumexp(log_probs[:, 0, 1], 0).backward()
    torch.testing.assert_close(log_probs.grad[:, 0, 1], log_probs.detach()[:, 0, 1].softmax(0))


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[[200.0, -200.0]], [[-200.0, 200.0]]])
    assert log_predictive(logits).exp().tolist() == [[0.5, 0.5]]
    assert predictive_entropy(logits).item() == pytest.approx(math.log(2))
    assert mutual_information(logits).item() == pytest.approx(math.log(2))


def test_samples_are_different_draws_and_modes_are_restored():
    # T2.8, T3.6
    net = bayesianize(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)), BBB(rho_init=(-1.0, 0.1)))
    net[2].eval()
    statistics = net[1].running_mean.clone()
    logits = sample_logits(net, torch.randn(6, 4), 5)
    assert logits.shape == (5, 6, 3)
    assert len({tuple(sample.flatten().tolist()) for sample in logits}) == 5
    assert not logits.requires_grad
    assert (mutual_information(logits) > 0).all()
    assert torch.equal(net[1].running_mean, statistics)
    assert [module.training for module in net] == [True, True, False]


def test_mean_weights_have_no_epistemic_uncertainty():
    # T3.4, T3.5
    net = bayesianize(nn.Linear(4, 3), BBB(rho_init=(-1.0, 0.1)))
    with sampling(net, False):
        logits = sample_logits(net, torch.randn(6, 4), 3)
    assert torch.equal(logits[0], logits[2])
    assert mutual_information(logits).max().item() < 1e-6
    assert mutual_information(sample_logits(net, torch.randn(6, 4), 1)).max().item() < 1e-6


def test_samples_must_be_one_or_more():
    with pytest.raises(ValueError, match=r"^samples must be 1 or more, got 0\.$"):
        sample_logits(nn.Linear(1, 1), torch.zeros(1, 1), 0)
