import math

import numpy as np
import pytest
import torch

from bnn_lightning import (
    covariances,
    expected_entropy,
    log_predictive,
    mutual_information,
    predictive_entropy,
    probabilities,
    variances,
)
from bnn_lightning.likelihoods.categorical.predictive import summary

# Four samples of one image, three classes; the numbers that they come to are worked out apart from this code.
LOGITS = torch.tensor([[2, 0, -1], [1, 1, 0], [0, 2, 0], [3, -1, 0]], dtype=torch.float64).unsqueeze(1)


def test_uncertainties_are_those_worked_out_for_four_samples():
    assert log_predictive(LOGITS).exp().squeeze(0).tolist() == pytest.approx([0.57721502, 0.33516197, 0.08762302])
    assert predictive_entropy(LOGITS).item() == pytest.approx(0.89691918)
    assert expected_entropy(LOGITS).item() == pytest.approx(0.62037739)
    assert mutual_information(LOGITS).item() == pytest.approx(0.27654179)
    aleatoric, epistemic = variances(LOGITS)
    assert epistemic[0].tolist() == pytest.approx([0.11138056, 0.09042515, 0.00217691], abs=1e-8)
    assert aleatoric[0].tolist() == pytest.approx([0.13265728, 0.13240327, 0.07776832], abs=1e-8)


def test_uncertainties_of_the_normalized_form_are_those_worked_out_for_four_samples():
    probs = probabilities(LOGITS, "normalized")
    assert probs.mean(0)[0].tolist() == pytest.approx([0.50587823, 0.32486920, 0.16925257], abs=1e-8)
    aleatoric, epistemic = variances(LOGITS, "normalized")
    assert epistemic[0].tolist() == pytest.approx([0.04944260, 0.03894038, 0.00178810], abs=1e-8)
    assert aleatoric[0].tolist() == pytest.approx([0.20052285, 0.18038882, 0.13881804], abs=1e-8)
    entropy = torch.special.entr(probs.mean(0)).sum().item()
    expected = torch.special.entr(probs).sum(-1).mean().item()
    assert (entropy, expected) == pytest.approx((1.01065050, 0.88655875))
    # Not the likelihood that networks are trained with.
    sure = torch.tensor([[[10.0] + [0.0] * 9]])
    assert probabilities(sure, "normalized")[0, 0, 0].item() == pytest.approx(0.6158, abs=5e-5)
    assert probabilities(sure)[0, 0, 0].item() == pytest.approx(0.99959, abs=5e-6)


@pytest.mark.parametrize("transform", ["softmax", "normalized"])
def test_covariances_keep_their_identities(transform):
    # Both parts add up to diag(p) - p p^T of the mean p. Each is symmetric and positive semi-definite, with rows that
    # add up to 0 and the diagonal that variances() gives.
    logits = 3 * torch.randn(9, 6, 5, dtype=torch.float64)
    aleatoric, epistemic = covariances(logits, transform)
    mean = probabilities(logits, transform).mean(0)
    total = mean.diag_embed() - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    torch.testing.assert_close(aleatoric + epistemic, total, rtol=0, atol=1e-12)
    trace = (aleatoric + epistemic).diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(trace, 1 - mean.square().sum(-1), rtol=0, atol=1e-12)
    for part, diagonal in zip((aleatoric, epistemic), variances(logits, transform), strict=True):
        torch.testing.assert_close(part, part.mT)
        assert torch.linalg.eigvalsh(part).min() > -1e-12
        torch.testing.assert_close(part.sum(-1), torch.zeros(6, 5, dtype=torch.float64), rtol=0, atol=1e-12)
        torch.testing.assert_close(part.diagonal(dim1=-2, dim2=-1), diagonal)


@pytest.mark.parametrize("transform", ["softmax", "normalized"])
def test_one_sample_has_no_epistemic_uncertainty(transform):
    # One sample, which mean weights are too, differs from nothing: all of its uncertainty is aleatoric.
    logits = torch.randn(1, 6, 5, dtype=torch.float64)
    aleatoric, epistemic = covariances(logits, transform)
    probs = probabilities(logits, transform)[0]
    assert epistemic.abs().max() == 0
    torch.testing.assert_close(aleatoric, probs.diag_embed() - probs.unsqueeze(-1) * probs.unsqueeze(-2))
    assert mutual_information(logits).tolist() == [0.0] * 6


def test_every_function_follows_the_order_of_classes_and_treats_images_alone():
    # Columns that change places must take their numbers along, and a batch must give what its images give one by one.
    logits = torch.randn(4, 6, 5, dtype=torch.float64)
    order = torch.tensor([2, 0, 4, 1, 3])
    original, reordered = summary(logits), summary(logits[..., order])
    torch.testing.assert_close(reordered.pop("log_probs"), original["log_probs"][:, order])
    for name, value in reordered.items():
        torch.testing.assert_close(value, original[name])
    one_by_one = [summary(logits[:, index : index + 1]) for index in range(6)]
    for name, value in original.items():
        torch.testing.assert_close(torch.cat([alone[name] for alone in one_by_one]), value)
    spread = variances(logits)
    total = 1 - original["log_probs"].exp().square().sum(-1)
    torch.testing.assert_close(original["aleatoric"] + original["epistemic"], total)
    torch.testing.assert_close(original["epistemic"], spread.epistemic.sum(-1))


def test_very_negative_logits_are_normalized_evenly():
    assert probabilities(torch.full((1, 1, 4), -200.0), "normalized").flatten().tolist() == [0.25] * 4
    with pytest.raises(ValueError, match=r"^transform must be softmax or normalized, got 'sigmoid'\.$"):
        probabilities(LOGITS, "sigmoid")


def test_entropies_are_numpys():
    logits = torch.randn(7, 5, 4)
    exp = np.exp(logits.double().numpy())
    probs = exp / exp.sum(-1, keepdims=True)
    mean = probs.mean(0)
    entropy = -(mean * np.log(mean)).sum(-1)
    expected = -(probs * np.log(probs)).sum(-1).mean(0)
    np.testing.assert_allclose(log_predictive(logits).numpy(), np.log(mean), rtol=1e-5)
    np.testing.assert_allclose(predictive_entropy(logits).numpy(), entropy, rtol=1e-5)
    np.testing.assert_allclose(mutual_information(logits).numpy(), entropy - expected, atol=1e-6)
    # 0 <= mutual information, and entropy <= log K
    assert (mutual_information(logits) >= 0).all()
    assert (predictive_entropy(logits) <= math.log(4) + 1e-6).all()


def test_mutual_information_of_confident_networks_is_not_rounded_away():
    # Margins of 20: of entropies below 1e-7, whose difference float32 does not have.
    logits = torch.randn(25, 200, 10)
    logits[..., 0] += 20
    wide = logits.double()
    log_probs = wide - wide.logsumexp(-1, keepdim=True)
    divergences = log_probs.exp() * (log_probs - (log_probs.logsumexp(0) - math.log(25)))
    expected = divergences.sum(-1).mean(0)
    assert expected.max() < 1e-6
    torch.testing.assert_close(mutual_information(logits), expected.float(), rtol=1e-4, atol=0)


def test_log_mean_exp_gradient_is_the_softmax_over_samples():
    # The maximum inside logsumexp carries no gradient of its own.
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
