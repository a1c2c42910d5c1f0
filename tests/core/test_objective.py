import math

import pytest
import torch
from torch import nn

from bnn_lightning import BBB, bayesianize, elbo, kl, sampling, variational_loss

F64 = torch.float64


def test_elbo_is_minus_the_loss_at_weight_one():
    assert elbo(0.5, 3000.0, 1000) == -3.5
    assert variational_loss(0.5, 3000.0, 1000) == 3.5
    assert variational_loss(0.5, 3000.0, 1000, kl_weight=0.5) == 2.0


def test_total_form_is_n_times_the_per_datum_form():
    # Loss and gradients; the total form is written out here.
    net = bayesianize(nn.Sequential(nn.Linear(4, 3)).to(F64), BBB())
    x, labels, n = torch.randn(16, 4, dtype=F64), torch.randint(0, 3, (16,)), 480

    def losses():
        torch.manual_seed(1)
        log_probs = net(x).log_softmax(-1)
        total = n * -log_probs[torch.arange(16), labels].mean() + 0.7 * kl(net)
        return variational_loss(nn.functional.cross_entropy(log_probs, labels), kl(net), n, 0.7), total

    for pick, scale in ((0, n), (1, 1)):
        net.zero_grad()
        losses()[pick].mul(scale).backward()
        gradients = [parameter.grad.clone() for parameter in net.parameters()]
        if pick == 0:
            first = gradients
    torch.testing.assert_close(losses()[0] * n, losses()[1], rtol=1e-12, atol=0)
    for a, b in zip(first, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_four_micro_batches_are_one_batch():
    # With mean weights, so that no noise differs; the KL enters once in total.
    net = bayesianize(nn.Sequential(nn.Linear(4, 3)).to(F64), BBB())
    x, labels, n = torch.randn(32, 4, dtype=F64), torch.randint(0, 3, (32,)), 480

    def gradients(parts):
        net.zero_grad()
        with sampling(net, False):
            for rows, targets in zip(x.chunk(parts), labels.chunk(parts), strict=True):
                nll = nn.functional.cross_entropy(net(rows), targets)
                (variational_loss(nll, kl(net), n) / parts).backward()
        return [parameter.grad.clone() for parameter in net.parameters()]

    for whole, in_parts in zip(gradients(1), gradients(4), strict=True):
        torch.testing.assert_close(whole, in_parts, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_conjugate_regression_reaches_the_exact_posterior():
    # With a Gaussian likelihood the ELBO's optimum is the exact posterior: KL, its direction and N must all be right.
    prior_sigma, noise, n = 0.5, 0.3, 50
    x = torch.linspace(-1, 1, n, dtype=F64).unsqueeze(1)
    y = 0.8 * x + noise * torch.randn(n, 1, dtype=F64)
    precision = 1 / prior_sigma**2 + (x.square().sum() / noise**2).item()
    exact_mean, exact_sigma = ((x * y).sum() / noise**2 / precision).item(), precision**-0.5
    layer = bayesianize(nn.Linear(1, 1, bias=False).to(F64), BBB(prior_sigma=prior_sigma, rho_init=(-2.0, 0.0)))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        mu, variance = layer.weight.mean, layer.weight.variance
        # E_q of the squared error in closed form, so that nothing is left to chance.
        squared = (y - x * mu).square() + x.square() * variance
        nll = (squared / (2 * noise**2)).mean() + math.log(noise * math.sqrt(2 * math.pi))
        variational_loss(nll, kl(layer), n).backward()
        optimizer.step()
    assert layer.weight.mean.item() == pytest.approx(exact_mean, abs=1e-4)
    assert layer.weight.variance.sqrt().item() == pytest.approx(exact_sigma, rel=1e-3)
    evidence = torch.distributions.MultivariateNormal(
        torch.zeros(n, dtype=F64), prior_sigma**2 * x @ x.T + noise**2 * torch.eye(n, dtype=F64)
    ).log_prob(y.squeeze(1))
    assert elbo(nll, kl(layer), n).item() * n == pytest.approx(evidence.item(), abs=1e-3)
