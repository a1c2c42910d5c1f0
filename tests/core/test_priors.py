"""Priors beside the normal one."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import distributions, nn
from torch.distributions import Normal, kl_divergence

from bnn_lightning.core.conversion import bayesianize
from bnn_lightning.core.kernels.quadrature import gauss_hermite, mean_log1p_square
from bnn_lightning.core.methods import BBB, LRT
from bnn_lightning.core.posteriors import Gaussian
from bnn_lightning.core.priors import FanIn, LaplacePrior, LearntScale, ScaleMixture, StudentTPrior
from bnn_lightning.core.priors import Normal as NormalPrior
from bnn_lightning.core.whole_network import kl, sigma_over_prior

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


def kl_by_integration(mu, sigma, log_p):
    """KL(N(mu, sigma^2) || p) by scipy's adaptive quadrature."""
    q = stats.norm(mu, sigma)
    low, high = mu - 14 * sigma, mu + 14 * sigma
    return integrate.quad(
        lambda w: q.pdf(w) * (q.logpdf(w) - log_p(w)), low, high, points=[mu, min(max(0, low), high)], limit=500
    )[0]


CASES = [(mu, sigma) for mu in (0.0, 0.03, -0.2, 2.0) for sigma in (1e-3, 0.05, 0.1, 0.2)]


@pytest.mark.parametrize(("mu", "sigma"), CASES)
def test_the_kl_to_a_laplace_prior_is_the_integral(mu, sigma):
    expected = kl_by_integration(mu, sigma, stats.laplace(0, 0.1).logpdf)
    got = LaplacePrior(0.1).kl(*(torch.tensor(x, dtype=F64) for x in (mu, sigma, math.log(sigma))))
    assert got.item() == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(
    ("df", "within", "error"), [(1.0, 0.1, 2e-5), (1.0, 0.2, 3e-3), (3.0, 0.1, 2e-8), (3.0, 0.2, 1e-4)]
)
def test_the_kl_to_students_t_is_the_integral_to_the_error_that_is_stated(df, within, error):
    for mu, sigma in CASES:
        if sigma <= within:
            expected = kl_by_integration(mu, sigma, stats.t(df, 0, 0.1).logpdf)
            got = StudentTPrior(df, 0.1).kl(*(torch.tensor(x, dtype=F64) for x in (mu, sigma, math.log(sigma)))).item()
            assert got == pytest.approx(expected, abs=error)


def test_the_tensor_of_a_prior_is_nobody_elses():
    mean = torch.tensor(0.0)
    net = bayesianize(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), BBB(prior=NormalPrior(mean, torch.tensor(1.0))))
    net[0].weight.prior_mu.fill_(5.0)
    assert mean == 0
    assert net[1].weight.prior_mu == net[0].bias.prior_mu == 0


def test_log_densities_are_those_of_torch():
    w = torch.linspace(-3, 3, 101, dtype=F64)
    torch.testing.assert_close(LaplacePrior(0.4).log_prob(w), distributions.Laplace(0.0, 0.4).log_prob(w))
    torch.testing.assert_close(StudentTPrior(2.5, 0.4).log_prob(w), distributions.StudentT(2.5, 0.0, 0.4).log_prob(w))
    torch.testing.assert_close(FanIn(0.4).log_prob(w), Normal(0.0, 0.4).log_prob(w))


def test_quadrature_has_the_nodes_of_numpy_and_the_gradients_of_finite_differences():
    nodes, weights = map(np.array, zip(*gauss_hermite(20), strict=True))
    expected_nodes, expected_weights = np.polynomial.hermite_e.hermegauss(20)
    np.testing.assert_allclose(nodes, expected_nodes, atol=1e-12)
    np.testing.assert_allclose(weights, expected_weights / math.sqrt(2 * math.pi), rtol=1e-7, atol=1e-15)
    mu, sigma = torch.randn(5, dtype=F64, requires_grad=True), torch.rand(5, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(mean_log1p_square, (mu, sigma))
    plain = sum(p * (mu + sigma * z).square().log1p() for z, p in gauss_hermite(32))
    torch.testing.assert_close(mean_log1p_square(mu, sigma), plain, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("prior", [LaplacePrior(), StudentTPrior(), StudentTPrior(df=1.0), FanIn()], ids=repr)
@pytest.mark.parametrize("rho", [-200.0, -104.5, -16.0, 25.0, 89.0])
def test_kls_and_their_gradients_are_finite_for_extreme_rho(prior, rho):
    posterior = Gaussian(torch.tensor([0.0, 0.1, -1e-3, 5.0]), torch.full((4,), rho), prior)
    posterior.kl().backward()
    assert torch.isfinite(posterior.kl())
    assert torch.isfinite(posterior.mu.grad).all()
    assert torch.isfinite(posterior.rho.grad).all()


@pytest.mark.parametrize("prior", [LaplacePrior(0.3), StudentTPrior(3.0, 0.3)], ids=repr)
def test_gradients_of_the_kls_are_those_of_finite_differences(prior):
    mu, sigma = torch.randn(5, dtype=F64, requires_grad=True), (0.01 + 0.3 * torch.rand(5, dtype=F64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda mu, sigma: prior.kl(mu, sigma, sigma.log()), (mu, sigma))


def test_fan_in_is_what_one_output_adds_up():
    layers = {
        "linear": (nn.Linear(20, 3), 20),
        "conv": (nn.Conv2d(4, 6, 5, groups=2), 2 * 25),
        "transposed": (nn.ConvTranspose2d(4, 6, 3, groups=2), 2 * 9),
        "lstm": (nn.LSTM(7, 2), 7),
        "bilinear": (nn.Bilinear(3, 4, 5), 3 * 4),
    }
    for layer, fan_in in layers.values():
        net = bayesianize(layer, BBB(prior=FanIn(0.5)))
        name = "weight_ih_l0" if isinstance(layer, nn.LSTM) else "weight"
        weight = getattr(net, name)
        assert type(weight.prior) is NormalPrior
        assert weight.prior.sigma.item() == pytest.approx(0.5 / fan_in**0.5)
        assert getattr(net, name.replace("weight", "bias")).prior.sigma.item() == 0.5
    net = bayesianize(layers["linear"][0], LRT(prior=FanIn(0.5), rho_init=(math.log(math.expm1(0.1)), 0.0)))
    q = [Normal(net.weight.mu, 0.1), Normal(net.bias.mu, 0.1)]
    expected = sum(
        kl_divergence(each, Normal(0.0, scale)).sum() for each, scale in zip(q, (0.5 / 20**0.5, 0.5), strict=True)
    )
    torch.testing.assert_close(kl(net), expected, rtol=1e-5, atol=0)
    assert sigma_over_prior(net) == pytest.approx((60 * 0.2 * 20**0.5 + 3 * 0.2) / 63, rel=1e-5)


def test_one_word_of_an_embedding_gives_its_output():
    net = bayesianize(nn.Embedding(2000, 50), BBB(prior=FanIn(0.5), mu_init="he"))
    assert net.weight.prior.sigma.item() == 0.5
    assert net.weight.mu.std().item() == pytest.approx(2**0.5, rel=5 / (2 * 100_000) ** 0.5)


@pytest.mark.parametrize(
    ("prior", "mean"), [(None, 1.5), (FanIn(0.3), 1.0), (LearntScale(0.5), 1.5), (LaplacePrior(), None)], ids=repr
)
def test_the_prior_of_the_scales_of_norm_layers_is_around_one(prior, mean):
    chain = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6))
    net = bayesianize(chain, BBB(prior_mu=0.5, prior_sigma=0.2, prior=prior), only=["*", "LayerNorm"])
    scales, shifts = net[1].weight, net[1].bias
    if mean is None:
        assert scales.prior == prior
    elif isinstance(prior, LearntScale):
        assert (scales.prior.prior_mu, shifts.prior.prior_mu) == (mean, mean - 1)
    else:
        assert (scales.prior.mu.item(), shifts.prior.mu.item()) == pytest.approx((mean, mean - 1))
        q = Normal(scales.mu, scales.sigma)
        expected = kl_divergence(q, Normal(mean, scales.prior.sigma)).sum()
        torch.testing.assert_close(scales.kl(), expected, rtol=1e-5, atol=0)


def test_the_outputs_of_wide_layers_are_as_large_as_those_of_narrow_ones_under_fan_in():
    for width in (10, 1000):
        prior = FanIn(2.0).for_tensor(torch.zeros(500, width), type("Op", (), {"out_features": 500}))
        y = torch.randn(width).sign() @ (prior.sigma * torch.randn(width, 500))
        assert y.std().item() == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FanIn(0.0), "scale must be a positive standard deviation such as 1, got 0.0."),
        (lambda: LaplacePrior(-1.0), "scale must be a positive mean of |w| such as 0.1, got -1.0."),
        (lambda: StudentTPrior(df=0.0), "df must be a positive number of degrees of freedom such as 3, got 0.0."),
        (lambda: StudentTPrior(scale=math.nan), "scale must be a positive width such as 0.1, got nan."),
        (lambda: LearntScale(math.nan), "prior_mu must be a finite number such as 0, got nan."),
        (lambda: LearntScale(-math.inf), "prior_mu must be a finite number such as 0, got -inf."),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match="must be") as error:
        make()
    assert str(error.value) == message


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
