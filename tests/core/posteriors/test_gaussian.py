"""The Gaussian posterior and its KL."""

import math

import pytest
import torch
from torch import distributions

from bnn_lightning.core.kernels.gaussian_kl import gaussian_kl
from bnn_lightning.core.posteriors import Gaussian, LowRank, Radial
from bnn_lightning.core.priors import Normal

pytestmark = pytest.mark.usefixtures("as_small_and_as_large")

F64 = torch.float64


def inverse_softplus(sigma):
    return math.log(math.expm1(sigma))


def gaussian(mu, sigma, prior_mu=0.0, prior_sigma=0.1):
    mu, rho = torch.tensor([mu], dtype=F64), torch.tensor([inverse_softplus(sigma)], dtype=F64)
    return Gaussian(mu, rho, Normal(prior_mu, prior_sigma))


def test_kl_is_the_known_value_in_the_right_direction():
    # KL(N(.3, .05^2) || N(0, .1^2)); the reverse would be 18.8.
    kl = gaussian(0.3, 0.05).kl().item()
    assert kl == pytest.approx(4.8181471805599445, rel=1e-9)
    assert kl != pytest.approx(18.806852819440053, rel=0.1)


def test_kl_equals_torch_distributions():
    mu, rho = torch.randn(40, dtype=F64), torch.randn(40, dtype=F64) - 3
    posterior = Gaussian(mu, rho, Normal(0.2, 0.3))
    sigma = torch.log1p(rho.exp())
    expected = distributions.kl_divergence(
        distributions.Normal(mu, sigma),
        distributions.Normal(torch.tensor(0.2, dtype=F64), torch.tensor(0.3, dtype=F64)),
    )
    torch.testing.assert_close(posterior.kl(), expected.sum(), rtol=1e-12, atol=0)


def test_kl_is_zero_only_where_posterior_and_prior_are_equal():
    assert gaussian(0.2, 0.4, prior_mu=0.2, prior_sigma=0.4).kl().item() == pytest.approx(0, abs=1e-12)
    assert gaussian(0.2, 0.41, prior_mu=0.2, prior_sigma=0.4).kl().item() > 1e-4
    assert gaussian(0.21, 0.4, prior_mu=0.2, prior_sigma=0.4).kl().item() > 1e-4


@pytest.mark.parametrize("rho", [-200.0, -104.5, -16.0, -14.9, 0.0, 25.0, 89.0, 200.0])
def test_kl_and_its_gradients_are_finite_for_extreme_rho(rho):
    posterior = Gaussian(torch.zeros(1), torch.tensor([rho]), Normal())
    kl = posterior.kl()
    kl.backward()
    assert torch.isfinite(kl)
    assert torch.isfinite(posterior.rho.grad).all()
    if rho < -20:  # log sigma = rho there: the KL must go on growing by one nat for each unit of rho
        assert posterior.rho.grad.item() == pytest.approx(-1, abs=1e-5)


def test_kl_is_summed_in_float32_for_bfloat16_parameters():
    posterior = Gaussian(torch.zeros(5000), torch.full((5000,), -3.0), Normal()).to(torch.bfloat16)
    exact = Gaussian(torch.zeros(5000), torch.full((5000,), -3.0), Normal(sigma=torch.tensor(0.1).bfloat16().float()))
    assert posterior.kl().dtype == torch.float32
    torch.testing.assert_close(posterior.kl(), exact.kl())


def test_the_gradients_of_the_kl_are_those_of_finite_differences():
    # Of the formula itself; the pass that forms all gradients at once has a test of its own, by numpy.
    mu, rho = torch.randn(6, dtype=F64, requires_grad=True), (torch.randn(6, dtype=F64) - 2).requires_grad_()

    def kl(mu, rho):
        unit = torch.ones((), dtype=F64)
        return gaussian_kl(mu, torch.nn.functional.softplus(rho), 0.1 * unit, 0.3 * unit).sum()

    assert torch.autograd.gradcheck(kl, (mu, rho))


def test_samples_have_the_posterior_moments_and_follow_the_seed():
    count = 40_000
    posterior = Gaussian(torch.full((count,), 0.3), torch.full((count,), -3.0), Normal())
    torch.manual_seed(7)
    sample = posterior.sample()
    torch.manual_seed(7)
    assert torch.equal(sample, posterior.sample())
    sigma = math.log1p(math.exp(-3))
    assert sample.mean().item() == pytest.approx(0.3, abs=5 * sigma / math.sqrt(count))
    assert sample.var().item() == pytest.approx(sigma**2, rel=5 * math.sqrt(2 / count))
    assert posterior.variance[0].item() == pytest.approx(sigma**2, rel=1e-6)


def test_priors_are_buffers_and_means_and_rho_parameters():
    posterior = Gaussian(torch.zeros(3), torch.zeros(3), Normal())
    assert set(posterior.state_dict()) == {"mu", "rho", "prior_mu", "prior_sigma"}
    assert {name for name, _ in posterior.named_parameters()} == {"mu", "rho"}


@pytest.mark.parametrize("family", [Gaussian, LowRank, Radial])
def test_variances_in_half_precision_are_not_rounded_to_zero(family):
    # softplus(-9)^2 = 1.5e-8, a quarter of the smallest number of float16.
    weight = family(torch.zeros(4, 3), torch.full((4, 3), -9.0), Normal(0.0, 0.1)).half()
    variance = weight.variance
    torch.testing.assert_close(variance, weight.double().variance.float(), rtol=1e-5, atol=0)
