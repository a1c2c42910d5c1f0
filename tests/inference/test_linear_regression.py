"""Bayesian linear regression: the closed form is recovered by BBB, LRT, Flipout and Laplace, in float64."""

import math

import pytest
import torch
from torch import nn

from bnn_lightning import (
    BBB,
    LRT,
    Flipout,
    GaussianLikelihood,
    Laplace,
    Sampler,
    bayesianize,
    elbo,
    kl,
    random_tensors,
)
from bnn_lightning.likelihoods.regression.mixture import Mixture

N, FEATURES, SIGMA, PRIOR = 40, 3, 0.5, 1.0
PASSES, COPIES = 8, 4  # noise samples in each step: forward passes, and copies of the data in each


@pytest.fixture(scope="module")
def problem():
    """Correlated features with a bias, targets, and the exact posterior of the weights, bias last."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, FEATURES, generator=generator, dtype=torch.float64)
    x[:, 1] += 0.7 * x[:, 0]
    design = torch.cat([x, torch.ones(N, 1, dtype=torch.float64)], 1)
    truth = torch.tensor([[1.0], [-0.5], [0.3], [0.2]], dtype=torch.float64)
    y = design @ truth + SIGMA * torch.randn(N, 1, generator=generator, dtype=torch.float64)
    precision = design.T @ design / SIGMA**2 + torch.eye(FEATURES + 1, dtype=torch.float64) / PRIOR**2
    mean = torch.linalg.solve(precision, design.T @ y / SIGMA**2)
    covariance = SIGMA**2 * torch.eye(N, dtype=torch.float64) + PRIOR**2 * design @ design.T
    evidence = torch.distributions.MultivariateNormal(torch.zeros(N, dtype=torch.float64), covariance)
    return x, y, design, mean.flatten(), precision, evidence.log_prob(y.flatten()).item()


def trained(method, x, y, likelihood):
    """Adam with a rate that falls to zero: what is left of the noise averages out."""
    net = bayesianize(likelihood.prepare(nn.Sequential(nn.Linear(FEATURES, 1))).double(), method)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    steps, many_x, many_y = 900, x.repeat(COPIES, 1), y.repeat(COPIES, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / steps) ** 2)
    for _ in range(steps):
        outputs = torch.stack([net(many_x) for _ in range(PASSES)])
        loss = -elbo(likelihood.nll(outputs, many_y), kl(net), N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


@pytest.mark.slow
@pytest.mark.parametrize("kind", [BBB, LRT, Flipout])
def test_mean_epistemic_variance_and_bound_are_those_of_the_closed_form(kind, problem):
    torch.manual_seed(0)
    x, y, design, mean, precision, evidence = problem
    likelihood = GaussianLikelihood(sigma=SIGMA)
    net = trained(kind(prior_sigma=PRIOR, mu_init=None, rho_init=(-2.0, 0.0)), x, y, likelihood)
    parts = dict(random_tensors(net))
    ours = torch.cat([parts["0.weight"].mean.flatten(), parts["0.bias"].mean]).detach()
    variance = torch.cat([parts["0.weight"].variance.flatten(), parts["0.bias"].variance]).detach()
    # The factorised normal that is closest to a normal posterior has its mean, and the inverse of the diagonal of its
    # precision as variances (Bishop 2006, eq. 10.12-10.15).
    exact = 1 / precision.diagonal()
    torch.testing.assert_close(ours, mean, rtol=0, atol=0.1 * exact.sqrt().min().item())
    torch.testing.assert_close(variance, exact, rtol=0.06, atol=0)

    samples = Sampler(net, 4000, "local" if kind is LRT else "weights")(x)
    mixture = Mixture.of(likelihood.predictive(samples))
    aleatoric, epistemic = mixture.variances()
    assert aleatoric.unique().tolist() == pytest.approx([SIGMA**2])
    # The standard error of a variance of 4,000 draws is 2 %.
    torch.testing.assert_close(epistemic.flatten(), design.square() @ exact, rtol=0.15, atol=0)
    torch.testing.assert_close(mixture.mean().flatten(), design @ mean, rtol=0, atol=0.05)

    # -KL(q || posterior) is what the bound lacks, and nothing is below it.
    scatter = precision * exact.unsqueeze(0)
    gap = 0.5 * (scatter.trace() - len(mean) - torch.logdet(precision) - exact.log().sum()).item()
    bound = N * elbo(likelihood.nll(samples, y), kl(net), N).item()
    assert gap > 0.1  # the features are correlated
    assert bound == pytest.approx(evidence - gap, abs=0.1)
    assert bound < evidence


@pytest.mark.parametrize("learns_sigma", [False, True])
def test_laplace_has_the_exact_covariance_and_evidence(learns_sigma, problem):
    x, y, _, mean, precision, evidence = problem
    likelihood = GaussianLikelihood(sigma=None if learns_sigma else SIGMA)
    inference = Laplace(prior_precision=1 / PRIOR**2)
    net = inference.prepare(likelihood.prepare(nn.Sequential(nn.Linear(FEATURES, 1))).double(), None, "*")
    weight, bias = (dict(random_tensors(net))[name] for name in ("0.weight", "0.bias"))
    with torch.no_grad():
        weight.mean.copy_(mean[:FEATURES].unsqueeze(0))
        bias.mean.copy_(mean[FEATURES:])
        if learns_sigma:
            net.learnt_noise.constants.fill_(2 * math.log(SIGMA))
    inference.after_fit(net, [(x[:25], y[:25]), (x[25:], y[25:])], likelihood)
    factor = torch.cat([weight.factor.flatten(0, 1), bias.factor])
    torch.testing.assert_close(factor @ factor.T, torch.linalg.inv(precision))
    assert inference.findings(net)["log marginal likelihood"] == pytest.approx(evidence, rel=1e-9)


@pytest.mark.slow
def test_the_learnt_noise_maximises_the_bound(problem):
    # At the optimum sigma^2 = E|y - X w|^2 / N, with the expectation over q.
    torch.manual_seed(0)
    x, y, design, *_ = problem
    likelihood = GaussianLikelihood()
    net = trained(LRT(prior_sigma=PRIOR, mu_init=None, rho_init=(-2.0, 0.0)), x, y, likelihood)
    parts = dict(random_tensors(net))
    mean = torch.cat([parts["0.weight"].mean.flatten(), parts["0.bias"].mean]).detach()
    variance = torch.cat([parts["0.weight"].variance.flatten(), parts["0.bias"].variance]).detach()
    expected = ((y.flatten() - design @ mean).square() + design.square() @ variance).mean().sqrt().item()
    sigma = math.exp(net.learnt_noise.constants.item() / 2)
    assert sigma == pytest.approx(expected, rel=0.02)
