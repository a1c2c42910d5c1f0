"""Learnt posteriors of a last layer: KL against torch's multivariate normal, and draws against variances."""

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence
from torch.nn.functional import softplus

from bnn_lightning import Joint, Normal, sample_together
from bnn_lightning.core.posteriors import Gaussian
from bnn_lightning.core.posteriors.last_layer import (
    NoisyGaussian,
    TriangularLastRow,
    TriangularRows,
    triangular_variance,
)

F64 = torch.float64
CLASSES, FEATURES = 3, 2


def normal(*shape):
    return torch.randn(*shape, dtype=F64)


def dense(prior_sigma=0.7):
    """Weight and bias of one joint, with every parameter at random."""
    joint = Joint()
    weight = TriangularRows(normal(CLASSES, FEATURES), joint, normal(CLASSES, FEATURES), prior_sigma)
    bias = TriangularLastRow(normal(CLASSES), joint, normal(CLASSES), FEATURES, prior_sigma, normal(CLASSES))
    with torch.no_grad():
        weight.lower.normal_()  # above the diagonal too, where nothing may be read
        bias.lower.normal_()
    return weight, bias


def factors(weight, bias):
    """The Cholesky factors of weights and bias of each class, by their definition, without noise."""
    whole = torch.zeros(CLASSES, FEATURES + 1, FEATURES + 1, dtype=F64)
    for k in range(CLASSES):
        for i in range(FEATURES):
            whole[k, i, i] = softplus(weight.rho[k, i])
            whole[k, i, :i] = weight.lower[k, i, :i]
        whole[k, FEATURES, :FEATURES] = bias.lower[k]
        whole[k, FEATURES, FEATURES] = softplus(bias.rho[k])
    return whole.detach()


def test_shares_of_the_kl_sum_to_that_of_the_multivariate_normals():
    weight, bias = dense()
    means = torch.cat([weight.mean, bias.mean.unsqueeze(1)], 1)
    posterior = MultivariateNormal(means, scale_tril=factors(weight, bias))
    prior = MultivariateNormal(torch.zeros_like(means), 0.7**2 * torch.eye(FEATURES + 1, dtype=F64))
    torch.testing.assert_close(weight.kl() + bias.kl(), kl_divergence(posterior, prior).sum())
    marginal = MultivariateNormal(weight.mean, scale_tril=factors(weight, bias)[:, :FEATURES, :FEATURES])
    prior = MultivariateNormal(torch.zeros_like(weight.mean), 0.7**2 * torch.eye(FEATURES, dtype=F64))
    torch.testing.assert_close(weight.kl(), kl_divergence(marginal, prior).sum())


def test_draws_and_variances_of_outputs_are_those_of_the_factors_with_noise_on_the_bias():
    weight, bias = dense()
    whole = factors(weight, bias)
    covariance = whole @ whole.mT
    covariance[:, FEATURES, FEATURES] += softplus(bias.noise_rho).detach().square()
    torch.testing.assert_close(
        torch.cat([weight.variance, bias.variance.unsqueeze(1)], 1), covariance.diagonal(dim1=1, dim2=2)
    )
    x = normal(4, FEATURES)
    ones = torch.cat([x, torch.ones(4, 1, dtype=F64)], 1)
    expected = torch.einsum("bi,kij,bj->bk", ones, covariance, ones)
    torch.testing.assert_close(triangular_variance(x, weight, bias), expected)
    with torch.no_grad():
        drawn = [sample_together([weight, bias]) for _ in range(20_000)]
    draws = torch.stack([torch.cat([w - weight.mean, (b - bias.mean).unsqueeze(1)], 1) for w, b in drawn]).detach()
    measured = torch.einsum("nki,nkj->kij", draws, draws) / len(draws)
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    error = ((diagonal.unsqueeze(1) * diagonal.unsqueeze(2) + covariance.square()) / len(draws)).sqrt()
    assert torch.all((measured - covariance).abs() < 5 * error)


@pytest.mark.parametrize("kind", ["diagonal", "dense"])
def test_noise_is_in_variance_and_draws_and_not_in_the_kl(kind):
    if kind == "dense":
        _, bias = dense()
    else:
        bias = NoisyGaussian(normal(CLASSES), normal(CLASSES), Normal(0.0, 0.7), normal(CLASSES))
        quiet = Gaussian(bias.mu.detach(), bias.rho.detach(), Normal(0.0, 0.7))
        torch.testing.assert_close(bias.kl(), quiet.kl())
        torch.testing.assert_close(bias.variance - quiet.variance, softplus(bias.noise_rho).square())
        torch.testing.assert_close(bias.log_alpha(), (bias.variance / bias.mean.square()).log())
    before = bias.kl()
    with torch.no_grad():
        bias.noise_rho += 1
        draws = torch.stack([bias.sample() for _ in range(20_000)])
    torch.testing.assert_close(bias.kl(), before)
    assert torch.all((draws.var(0) - bias.variance).abs() < 5 * bias.variance * (2 / len(draws)) ** 0.5)
