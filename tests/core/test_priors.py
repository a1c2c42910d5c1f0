"""Priors beside the normal one."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from bnn_lightning.core.posteriors import Gaussian, LearntScale, ScaleMixture

F64 = torch.float64


def test_scale_mixtures_have_the_log_densities_worked_out():
    # pi = .5, sigma1 = 1, sigma2 = e^-6; a sum of densities in float32 would be 0 at 20.
    oracles = {0.0: 4.390390, 0.01: -1.500660, 0.5: -1.737086, 3.0: -6.112086, 20.0: -201.612086}
    log_densities = ScaleMixture().log_prob(torch.tensor(list(oracles)))
    torch.testing.assert_close(log_densities, torch.tensor(list(oracles.values())), rtol=1e-6, atol=2e-6)


def test_scale_mixture_kl_is_unbiased():
    # Against the integral by quadrature.
    mu, sigma = torch.tensor(0.3, dtype=F64), torch.tensor(0.4, dtype=F64)
    prior = ScaleMixture(pi=0.25, sigma1=0.8, sigma2=0.1)
    w = torch.linspace(-8, 8, 200_001, dtype=F64)
    log_q = Normal(mu, sigma).log_prob(w)
    parts = [math.log(p) + Normal(0.0, s).log_prob(w) for p, s in ((0.25, 0.8), (0.75, 0.1))]
    log_p = torch.logaddexp(*parts)
    exact = torch.trapezoid(log_q.exp() * (log_q - log_p), w).item()
    count = 200_000
    estimate = prior.kl(mu.expand(count), sigma.expand(count), sigma.log().expand(count)).item() / count
    spread = torch.trapezoid(log_q.exp() * log_p.square(), w) - torch.trapezoid(log_q.exp() * log_p, w).square()
    assert estimate == pytest.approx(exact, abs=5 * (spread.item() / count) ** 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pi": 1.0}, "pi must be between 0 and 1, got 1.0."),
        ({"sigma2": 0.0}, "sigma2 must be a positive standard deviation, got 0.0."),
    ],
)
def test_mixtures_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        ScaleMixture(**settings)
    assert str(error.value) == message


def test_learnt_scale_is_the_smallest_kl_over_all_scales_with_its_gradient():
    mu, rho = torch.randn(30, dtype=F64).requires_grad_(), (torch.randn(30, dtype=F64) - 1).requires_grad_()
    posterior = Gaussian(mu.detach(), rho.detach(), LearntScale(prior_mu=0.2))
    posterior.kl().backward()
    log_scale = torch.zeros((), dtype=F64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_scale], max_iter=100, tolerance_grad=1e-14, tolerance_change=0)

    def fixed_scale_kl():
        q = Normal(mu, rho.exp().log1p())
        return kl_divergence(q, Normal(torch.tensor(0.2, dtype=F64), log_scale.exp())).sum()

    def closure():
        optimizer.zero_grad()
        loss = fixed_scale_kl()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert posterior.kl().item() == pytest.approx(fixed_scale_kl().item(), rel=1e-9)
    mu.grad = rho.grad = None
    fixed_scale_kl().backward()
    torch.testing.assert_close(posterior.mu.grad, mu.grad, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(posterior.rho.grad, rho.grad, rtol=1e-5, atol=1e-8)
