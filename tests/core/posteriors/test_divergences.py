"""KLs of variational dropout as functions of alpha."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from bnn_lightning.core.posteriors import hierarchical_kl, kingma_kl, log_uniform_kl

F64 = torch.float64
LOG_ALPHAS = [-8.0, -5.0, -3.0, -1.0, 0.0, 1.0, 3.0, 8.0]
TABLE = {  # each KL at LOG_ALPHAS; Kingma's approximation is one for alpha up to 1
    log_uniform_kl: [4.63590, 3.13668, 2.11559, 0.91387, 0.43124, 0.17797, 0.02542, 0.00017],
    hierarchical_kl: [4.00017, 2.50336, 1.52429, 0.65663, 0.34657, 0.15663, 0.02429, 0.00017],
    kingma_kl: [4.24532, 2.73795, 1.69153, 0.49252, 0.0],
}
EXACT = [4.63501, 3.13178, 2.10798, 0.91453, 0.42669, 0.17320, 0.02469, 0.00017]


def precision_of(log_alphas):
    return torch.tensor(log_alphas, dtype=F64).neg().exp()


@pytest.mark.parametrize("function", TABLE)
def test_every_kl_has_the_tabled_values_and_falls_as_alpha_grows(function):
    values = function(precision_of(LOG_ALPHAS[: len(TABLE[function])]))
    torch.testing.assert_close(values, torch.tensor(TABLE[function], dtype=F64), rtol=0, atol=1e-4)
    finely = function(precision_of(torch.linspace(-8, 0 if function is kingma_kl else 20, 300).tolist()))
    assert (finely.diff() < 0).all()


def test_log_uniform_kl_is_near_the_exact_one_and_ends_at_zero():
    assert (log_uniform_kl(precision_of(LOG_ALPHAS)) - torch.tensor(EXACT, dtype=F64)).abs().max() < 0.009
    assert log_uniform_kl(torch.zeros(1)).item() == pytest.approx(0, abs=1e-6)


def test_the_exact_log_uniform_kl_is_that_of_quadrature():
    # The table of exact values itself: KL = -1/2 log alpha + E log|1 + sqrt(alpha) eps| - const, 0 as alpha grows.
    def expected_log(alpha):
        eps = torch.linspace(-12, 12, 2_000_001, dtype=F64)
        density = Normal(torch.zeros((), dtype=F64), 1.0).log_prob(eps).exp()
        values = (1 + math.sqrt(alpha) * eps).abs().clamp_min(1e-300).log()
        return torch.trapezoid(density * values, eps).item() - 0.5 * math.log(alpha)

    end = -0.5 * (math.log(2) + 0.5772156649015329)  # E log|eps|
    by_quadrature = [expected_log(math.exp(value)) - end for value in LOG_ALPHAS]
    torch.testing.assert_close(torch.tensor(by_quadrature), torch.tensor(EXACT), rtol=0, atol=1e-3)


def test_hierarchical_kl_is_the_least_over_prior_variances():
    theta, alpha = 0.7, 0.4
    q = Normal(theta, math.sqrt(alpha) * theta)
    gammas = torch.linspace(0.3, 1.2, 20_001)
    least = kl_divergence(q, Normal(0.0, gammas.sqrt())).min().item()
    assert hierarchical_kl(torch.tensor(1 / alpha)).item() == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("function", TABLE)
def test_the_gradients_of_every_kl_are_those_of_finite_differences(function):
    # Some of the gradients are written by hand; Kingma's slope at alpha = 1 is the published one.
    precision = (torch.rand(20, dtype=F64) * 30 + 1).requires_grad_()
    assert torch.autograd.gradcheck(function, (precision,))
    precision_of_one = torch.ones((), dtype=F64, requires_grad=True)
    function(precision_of_one).backward()
    if function is kingma_kl:
        assert -precision_of_one.grad.item() == pytest.approx(-0.41626651, abs=1e-6)
