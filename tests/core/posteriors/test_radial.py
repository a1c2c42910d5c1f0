"""The radial posterior: its moments, its entropy, and its KL."""

import math

import pytest
import torch
from scipy import integrate, stats
from torch import distributions, nn

from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods import BBB, LRT, Flipout
from bnn_lightning.core.posteriors import Gaussian, Radial
from bnn_lightning.core.posteriors.radial import unit_radial_entropy
from bnn_lightning.core.priors import LaplacePrior, LearntScale, Normal

F64 = torch.float64


def radial(n=6, prior=None):
    mu, rho = torch.randn(n, dtype=F64), torch.randn(n, dtype=F64)
    return Radial(mu, rho, prior or Normal(0.2, 0.7))


def draws(posterior, count):
    with torch.no_grad():
        return torch.vmap(lambda _: posterior.sample(), randomness="different")(torch.zeros(count))


def test_the_entropy_is_the_integral_over_lengths_and_that_of_a_normal_in_one_dimension():
    assert unit_radial_entropy(1) == pytest.approx(stats.norm.entropy(), rel=1e-12)
    for n in (2, 3, 10):
        log_surface = math.log(2) + n / 2 * math.log(math.pi) - math.lgamma(n / 2)

        def log_density(length, n=n, log_surface=log_surface):
            return math.log(2) + stats.norm.logpdf(length) - log_surface - (n - 1) * math.log(length)

        # The density falls with the length alone: -log p(v) is integrated over the law of |v|, the half-normal.
        entropy = integrate.quad(lambda x: -2 * stats.norm.pdf(x) * log_density(x), 0, 12, points=[1e-6, 1e-3, 1])[0]
        assert unit_radial_entropy(n) == pytest.approx(entropy, abs=1e-6)


def test_the_entropy_is_that_of_draws_counted_in_cells():
    # No formula for the density at all: a histogram of draws in the plane, at two sizes of its cells.
    x = draws(Radial(torch.zeros(2, dtype=F64), torch.full((2,), math.log(math.e - 1), dtype=F64), Normal()), 400_000)
    estimates = []
    for width in (0.1, 0.05):
        _, counts = (x / width).floor().long().unique(dim=0, return_counts=True)
        share = counts / len(x)
        estimates.append(-(share * (share / width**2).log()).sum().item())
    # Cells smear the peak at the middle out, and their number biases the estimate down; both are below 2 %.
    for estimate in estimates:
        assert estimate == pytest.approx(unit_radial_entropy(2), abs=0.05)


def test_moments_are_those_of_draws_and_lengths_do_not_grow_with_the_number_of_weights():
    posterior = radial()
    x = draws(posterior, 200_000)
    sigma = posterior.rho.detach().exp().log1p()
    torch.testing.assert_close(posterior.variance, sigma.square() / 6)
    error = (posterior.variance.detach() / len(x)).sqrt()
    assert ((x.mean(0) - posterior.mean).abs() < 5 * error).all()
    squares = (x - posterior.mean.detach()).square()
    assert ((squares.mean(0) - posterior.variance).abs() < 5 * squares.std(0) / len(x) ** 0.5).all()
    lengths = ((x - posterior.mean.detach()) / sigma).norm(dim=1)
    assert stats.kstest(lengths.numpy(), stats.halfnorm.cdf).pvalue > 1e-3
    assert posterior.log_alpha().allclose(posterior.variance.log() - 2 * posterior.mean.abs().log())


def test_its_law_is_unchanged_by_flipped_signs_as_flipout_needs():
    posterior = radial(3)
    x = draws(posterior, 100_000) - posterior.mean.detach()
    patterns = ((x > 0) * torch.tensor([1, 2, 4])).sum(1).bincount(minlength=8)
    assert stats.chisquare(patterns.numpy()).pvalue > 1e-3
    Flipout(posterior=Radial).weight(torch.zeros(3, 2), None)
    with pytest.raises(
        ValueError, match=r"^posterior must have independent elements for LRT, .* got Radial, .*; use BBB"
    ):
        LRT(posterior=Radial).weight(torch.zeros(3, 2), None)


@pytest.mark.parametrize("x", [[1.0, 2.0], [0.0, 0.0]], ids=["weights and biases", "biases"])
def test_each_example_under_flipout_has_the_law_of_a_weight_draw(x):
    # Of a sum of two elements, which tells a radial law from a Gaussian one with the same variances.
    plain = nn.Linear(2, 2).to(F64)
    sums = []
    for method in (Flipout, BBB):
        layer = BayesianLayer(plain, method(rho_init=(0.0, 0.0), posterior=Radial))
        rows = torch.tensor([x], dtype=F64)
        with torch.no_grad():
            y = torch.vmap(lambda _, net=layer, rows=rows: net(rows)[0].sum(), randomness="different")
            sums.append(y(torch.zeros(100_000)).numpy())
    assert stats.ks_2samp(*sums).pvalue > 1e-3
    assert stats.kstest((sums[0] - sums[0].mean()) / sums[0].std(), stats.norm.cdf).pvalue < 1e-3


@pytest.mark.parametrize("prior", [Normal(0.2, 0.7), LearntScale(0.2)])
def test_the_kl_is_the_mean_over_draws_where_only_moments_count(prior):
    posterior = radial(prior=prior)
    x = draws(posterior, 400_000)
    scale = 0.7
    if isinstance(prior, LearntScale):  # the scale that is best for the posterior, not for a draw
        scale = (posterior.variance + (posterior.mean - 0.2).square()).mean().sqrt().item()
    log_p = distributions.Normal(0.2, scale).log_prob(x).sum(1)
    entropy = posterior.rho.exp().log1p().log().sum().item() + unit_radial_entropy(6)
    expected, error = -entropy - log_p.mean().item(), log_p.std().item() / len(x) ** 0.5
    assert posterior.kl().item() == pytest.approx(expected, abs=5 * error)
    assert posterior.kl() == posterior.kl()


def test_the_kl_to_another_prior_is_estimated_from_a_draw_without_bias():
    posterior = radial(3, LaplacePrior(0.5))
    x = draws(posterior, 100_000)
    log_p = distributions.Laplace(0.0, 0.5).log_prob(x).sum(1)
    entropy = posterior.rho.exp().log1p().log().sum().item() + unit_radial_entropy(3)
    with torch.no_grad():
        estimates = torch.vmap(lambda _: posterior.kl(), randomness="different")(torch.zeros(100_000))
    error = 2**0.5 * log_p.std().item() / len(x) ** 0.5
    assert estimates.mean().item() == pytest.approx(-entropy - log_p.mean().item(), abs=5 * error)


def test_in_one_dimension_it_is_a_gaussian():
    mu, rho = torch.randn(1, dtype=F64), torch.randn(1, dtype=F64)
    torch.testing.assert_close(Radial(mu, rho, Normal()).kl(), Gaussian(mu, rho, Normal()).kl())


@pytest.mark.parametrize("rho", [-200.0, -30.0, 25.0, 89.0])
def test_kl_and_its_gradients_are_finite_for_extreme_rho(rho):
    posterior = Radial(torch.full((4,), 0.1), torch.full((4,), rho), Normal())
    posterior.kl().backward()
    assert torch.isfinite(posterior.kl())
    assert torch.isfinite(posterior.rho.grad).all()
