"""The Gaussian posterior whose standard deviations are a matrix of low rank."""

import pytest
import torch
from torch import distributions, nn

from bnn_lightning.core.conversion import bayesianize
from bnn_lightning.core.methods import LRT
from bnn_lightning.core.posteriors import LowRank
from bnn_lightning.core.priors import FanIn, LaplacePrior, Normal
from bnn_lightning.core.whole_network import width_parameters

F64 = torch.float64


def low_rank(shape=(5, 2, 3), rank=2, prior=None):
    mu, rho = torch.randn(shape, dtype=F64), torch.randn(shape, dtype=F64) - 3
    return LowRank(mu, rho, prior or Normal(0.1, 0.3), rank)


def test_sigma_is_the_sum_of_products():
    posterior = low_rank()
    u, v = posterior.log_u.detach().exp(), posterior.log_v.detach().exp()
    expected = torch.empty(5, 6, dtype=F64)
    for i in range(5):
        for j in range(6):
            expected[i, j] = sum(u[i, k] * v[k, j] for k in range(2))
    torch.testing.assert_close(posterior.sigma, expected.view(5, 2, 3))
    torch.testing.assert_close(posterior.variance, expected.view(5, 2, 3).square())
    assert torch.linalg.matrix_rank(posterior.sigma.flatten(1)) == 2
    torch.testing.assert_close(posterior.log_alpha(), posterior.variance.log() - 2 * posterior.mean.abs().log())


def test_it_begins_near_the_sigma_of_rho_and_its_terms_differ():
    mu, rho = torch.zeros(40, 30, dtype=F64), -5 + 0.1 * torch.randn(40, 30, dtype=F64)
    for rank in (1, 2, 4):
        ratio = LowRank(mu, rho, Normal(), rank).sigma / rho.exp().log1p()
        assert ratio.mean().item() == pytest.approx(1, abs=0.06)
        assert ratio.std() < 0.3
    posterior = LowRank(mu, rho, Normal(), 2)
    assert not posterior.log_u[:, 0].allclose(posterior.log_u[:, 1], atol=0.01)  # else they would stay equal for ever


@pytest.mark.parametrize("prior", [Normal(0.1, 0.3), LaplacePrior(0.2)])
def test_kl_and_its_gradients_are_those_of_independent_gaussians(prior):
    posterior = low_rank(prior=prior)
    posterior.kl().backward()
    mu, log_u, log_v = (
        value.detach().clone().requires_grad_() for value in (posterior.mu, posterior.log_u, posterior.log_v)
    )
    q = distributions.Normal(mu, torch.einsum("ik,kj->ij", log_u.exp(), log_v.exp()).view_as(mu))
    if isinstance(prior, Normal):
        p = distributions.Normal(torch.tensor(0.1, dtype=F64), torch.tensor(0.3, dtype=F64))
        expected = distributions.kl_divergence(q, p).sum()
    else:
        expected = prior.kl(q.mean, q.stddev, q.stddev.log())
    expected.backward()
    torch.testing.assert_close(posterior.kl(), expected, rtol=1e-12, atol=0)
    for own, reference in ((posterior.mu, mu), (posterior.log_u, log_u), (posterior.log_v, log_v)):
        torch.testing.assert_close(own.grad, reference.grad, rtol=1e-9, atol=1e-12)


def test_draws_have_its_moments():
    posterior = low_rank((3, 2))
    with torch.no_grad():
        x = torch.vmap(lambda _: posterior.sample(), randomness="different")(torch.zeros(100_000))
    z = (x - posterior.mean.detach()) / posterior.sigma.detach()
    assert (z.mean(0).abs() < 5 / 100_000**0.5).all()
    assert ((z.var(0) - 1).abs() < 5 * (2 / 100_000) ** 0.5).all()


def test_the_number_of_width_parameters_is_rank_times_outputs_and_fan_in():
    net = bayesianize(nn.Sequential(nn.Conv2d(3, 8, 5), nn.ConvTranspose2d(8, 4, 2)), LRT(posterior=LowRank))
    sizes = [value.numel() for value in width_parameters(net)]
    assert sizes == [2 * 8, 2 * 3 * 25, 8, 2 * 8, 2 * 4 * 4, 4]  # a bias has a sigma for each element


def test_sigma_does_not_underflow_and_half_precision_keeps_its_digits():
    posterior = LowRank(torch.full((2, 2), 0.1), torch.full((2, 2), -200.0), FanIn())
    posterior.kl().backward()
    assert posterior.kl().isfinite()
    assert posterior.log_u.grad.isfinite().all()
    other = low_rank((4, 6)).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = other.sigma
    torch.testing.assert_close(inside, other.sigma, rtol=1e-6, atol=0)


def test_a_rank_below_one_is_refused():
    with pytest.raises(ValueError, match=r"^rank must be 1 or more, got 0\.$"):
        low_rank(rank=0)
