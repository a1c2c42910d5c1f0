import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode

from bnn_lightning.core.posteriors import (
    HIERARCHICAL,
    KINGMA,
    LOG_UNIFORM,
    Additive,
    Gaussian,
    LearntAlpha,
    LearntScale,
    Multiplicative,
    Point,
    ScaleMixture,
    bounded,
    gaussian_kl,
    hierarchical_kl,
    kingma_kl,
    log_uniform_kl,
    unchanged,
)

F64 = torch.float64


def inverse_softplus(sigma):
    return math.log(math.expm1(sigma))


def gaussian(mu, sigma, prior_mu=0.0, prior_sigma=0.1):
    mu, rho = torch.tensor([mu], dtype=F64), torch.tensor([inverse_softplus(sigma)], dtype=F64)
    return Gaussian(mu, rho, prior_mu, prior_sigma)


def test_kl_is_the_known_value_in_the_right_direction():
    # T2.1: KL(N(.3, .05^2) || N(0, .1^2)); the reverse would be 18.8.
    kl = gaussian(0.3, 0.05).kl().item()
    assert kl == pytest.approx(4.8181471805599445, rel=1e-9)
    assert kl != pytest.approx(18.806852819440053, rel=0.1)


def test_kl_equals_torch_distributions():
    mu, rho = torch.randn(40, dtype=F64), torch.randn(40, dtype=F64) - 3
    posterior = Gaussian(mu, rho, prior_mu=0.2, prior_sigma=0.3)
    sigma = torch.log1p(rho.exp())
    expected = kl_divergence(Normal(mu, sigma), Normal(torch.tensor(0.2, dtype=F64), torch.tensor(0.3, dtype=F64)))
    torch.testing.assert_close(posterior.kl(), expected.sum(), rtol=1e-12, atol=0)


def test_kl_is_zero_only_where_posterior_and_prior_are_equal():
    assert gaussian(0.2, 0.4, prior_mu=0.2, prior_sigma=0.4).kl().item() == pytest.approx(0, abs=1e-12)
    assert gaussian(0.2, 0.41, prior_mu=0.2, prior_sigma=0.4).kl().item() > 1e-4
    assert gaussian(0.21, 0.4, prior_mu=0.2, prior_sigma=0.4).kl().item() > 1e-4


@pytest.mark.parametrize("rho", [-200.0, -104.5, -16.0, -14.9, 0.0, 25.0, 89.0, 200.0])
def test_kl_and_its_gradients_are_finite_for_extreme_rho(rho):
    posterior = Gaussian(torch.zeros(1), torch.tensor([rho]))
    kl = posterior.kl()
    kl.backward()
    assert torch.isfinite(kl)
    assert torch.isfinite(posterior.rho.grad).all()
    if rho < -20:  # log sigma = rho there: the KL must go on growing by one nat for each unit of rho
        assert posterior.rho.grad.item() == pytest.approx(-1, abs=1e-5)


def test_kl_is_summed_in_float32_for_bfloat16_parameters():
    posterior = Gaussian(torch.zeros(5000), torch.full((5000,), -3.0)).to(torch.bfloat16)
    exact = Gaussian(torch.zeros(5000), torch.full((5000,), -3.0), prior_sigma=torch.tensor(0.1).bfloat16().float())
    assert posterior.kl().dtype == torch.float32
    torch.testing.assert_close(posterior.kl(), exact.kl())


def test_kl_gradcheck():
    # T2.13
    mu, rho = torch.randn(6, dtype=F64, requires_grad=True), (torch.randn(6, dtype=F64) - 2).requires_grad_()

    def kl(mu, rho):
        one = torch.ones((), dtype=F64)
        return gaussian_kl(mu, torch.nn.functional.softplus(rho), 0.1 * one, 0.3 * one).sum()

    assert torch.autograd.gradcheck(kl, (mu, rho))


def test_samples_have_the_posterior_moments_and_follow_the_seed():
    count = 40_000
    posterior = Gaussian(torch.full((count,), 0.3), torch.full((count,), -3.0))
    torch.manual_seed(7)
    sample = posterior.sample()
    torch.manual_seed(7)
    assert torch.equal(sample, posterior.sample())  # T2.12
    sigma = math.log1p(math.exp(-3))
    assert sample.mean().item() == pytest.approx(0.3, abs=5 * sigma / math.sqrt(count))
    assert sample.var().item() == pytest.approx(sigma**2, rel=5 * math.sqrt(2 / count))
    assert posterior.variance[0].item() == pytest.approx(sigma**2, rel=1e-6)


def test_state_dict_keys_and_buffers():
    posterior = Gaussian(torch.zeros(3), torch.zeros(3))
    assert set(posterior.state_dict()) == {"mu", "rho", "prior_mu", "prior_sigma"}
    assert {name for name, _ in posterior.named_parameters()} == {"mu", "rho"}


# Priors


def test_scale_mixture_oracles():
    # T2.11: pi = .5, sigma1 = 1, sigma2 = e^-6; a sum of densities in float32 would be 0 at 20.
    oracles = {0.0: 4.390390, 0.01: -1.500660, 0.5: -1.737086, 3.0: -6.112086, 20.0: -201.612086}
    found = ScaleMixture().log_prob(torch.tensor(list(oracles)))
    torch.testing.assert_close(found, torch.tensor(list(oracles.values())), rtol=1e-6, atol=2e-6)


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
def test_bad_mixtures(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        ScaleMixture(**settings)
    assert str(error.value) == message


def test_learnt_scale_is_the_smallest_kl_over_all_scales_with_its_gradient():
    mu, rho = torch.randn(30, dtype=F64).requires_grad_(), (torch.randn(30, dtype=F64) - 1).requires_grad_()
    posterior = Gaussian(mu.detach(), rho.detach(), prior=LearntScale(prior_mu=0.2))
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


# Variational dropout

LOG_ALPHAS = [-8.0, -5.0, -3.0, -1.0, 0.0, 1.0, 3.0, 8.0]
TABLE = {  # T4.1
    log_uniform_kl: [4.63590, 3.13668, 2.11559, 0.91387, 0.43124, 0.17797, 0.02542, 0.00017],
    hierarchical_kl: [4.00017, 2.50336, 1.52429, 0.65663, 0.34657, 0.15663, 0.02429, 0.00017],
    kingma_kl: [4.24532, 2.73795, 1.69153, 0.49252, 0.0],
}
EXACT = [4.63501, 3.13178, 2.10798, 0.91453, 0.42669, 0.17320, 0.02469, 0.00017]


def precision_of(log_alphas):
    return torch.tensor(log_alphas, dtype=F64).neg().exp()


@pytest.mark.parametrize("function", TABLE)
def test_kl_tables_and_that_they_fall(function):
    found = function(precision_of(LOG_ALPHAS[: len(TABLE[function])]))
    torch.testing.assert_close(found, torch.tensor(TABLE[function], dtype=F64), rtol=0, atol=1e-4)
    finely = function(precision_of(torch.linspace(-8, 0 if function is kingma_kl else 20, 300).tolist()))
    assert (finely.diff() < 0).all()


def test_log_uniform_kl_is_near_the_exact_one_and_ends_at_zero():
    assert (log_uniform_kl(precision_of(LOG_ALPHAS)) - torch.tensor(EXACT, dtype=F64)).abs().max() < 0.009
    assert log_uniform_kl(torch.zeros(1)).item() == pytest.approx(0, abs=1e-6)


def test_exact_log_uniform_kl_by_quadrature():
    # The table of exact values itself: KL = -1/2 log alpha + E log|1 + sqrt(alpha) eps| - const, 0 as alpha grows.
    def expected_log(alpha):
        eps = torch.linspace(-12, 12, 2_000_001, dtype=F64)
        density = Normal(torch.zeros((), dtype=F64), 1.0).log_prob(eps).exp()
        values = (1 + math.sqrt(alpha) * eps).abs().clamp_min(1e-300).log()
        return torch.trapezoid(density * values, eps).item() - 0.5 * math.log(alpha)

    end = -0.5 * (math.log(2) + 0.5772156649015329)  # E log|eps|
    found = [expected_log(math.exp(value)) - end for value in LOG_ALPHAS]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(EXACT), rtol=0, atol=1e-3)


def test_hierarchical_kl_is_the_least_over_prior_variances():
    theta, alpha = 0.7, 0.4
    q = Normal(theta, math.sqrt(alpha) * theta)
    gammas = torch.linspace(0.3, 1.2, 20_001)
    least = kl_divergence(q, Normal(0.0, gammas.sqrt())).min().item()
    assert hierarchical_kl(torch.tensor(1 / alpha)).item() == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("function", TABLE)
def test_alpha_kl_gradcheck(function):
    # T2.13; Kingma's slope at alpha = 1 is the published one.
    precision = (torch.rand(20, dtype=F64) * 30 + 1).requires_grad_()
    assert torch.autograd.gradcheck(function, (precision,))
    one = torch.ones((), dtype=F64, requires_grad=True)
    function(one).backward()
    if function is kingma_kl:
        assert -one.grad.item() == pytest.approx(-0.41626651, abs=1e-6)


@pytest.mark.parametrize("divergence", [LOG_UNIFORM, HIERARCHICAL, KINGMA])
@pytest.mark.parametrize("start", [-110.0, -40.0, 40.0])
@pytest.mark.parametrize("parametrisation", ["log_sigma2", "log_sigma"])
def test_additive_kl_is_finite_at_a_mean_of_zero(parametrisation, start, divergence):
    # T4.6, beyond log alpha = -100 for the second weight
    posterior = Additive(torch.tensor([0.0, 0.1, -1e-20]), torch.full((3,), start), parametrisation, divergence)
    value = posterior.kl() + posterior.sample().sum() + posterior.variance.sum()
    value.backward()
    for parameter in posterior.parameters():
        assert torch.isfinite(parameter.grad).all()
    assert torch.isfinite(value)
    if start < -100:  # a sigma that small still feels the KL, which asks for a larger one
        posterior.zero_grad()
        posterior.kl().backward()
        spread = getattr(posterior, parametrisation).grad[1].item()
        assert spread == pytest.approx(-0.5 if parametrisation == "log_sigma2" else -1, rel=1e-3)


@pytest.mark.parametrize("divergence", [LOG_UNIFORM, HIERARCHICAL, KINGMA])
@pytest.mark.parametrize("start", [-100.0, 100.0])
def test_log_alpha_kl_is_finite_far_out(start, divergence):
    # T4.6
    alpha = LearntAlpha(torch.full((2,), start), "log_alpha", divergence)
    posterior = Multiplicative(torch.zeros(2), alpha, unchanged, shared=False)
    (posterior.kl() + posterior.sample().sum()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in posterior.parameters())


def test_bounded_stops_outwards_only():
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0], dtype=F64)
    for sign, passes in ((1.0, [0, 0, 1, 1, 1]), (-1.0, [1, 1, 1, 0, 0])):
        y = x.clone().requires_grad_()
        out = bounded(y, 0.0, 1.0)
        assert out.tolist() == [0, 0, 0.5, 1, 1]
        (sign * out).sum().backward()
        assert y.grad.abs().tolist() == passes
    inside = torch.tensor([0.2, 0.7], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: bounded(z, 0.0, 1.0), (inside,))


def test_bounds_are_made_on_the_device():
    # A number that is copied to a GPU would have the program wait for it, in every step.
    class Copies(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.seen += "copy" in str(function)
            return function(*args, **kwargs or {})

    with Copies() as copies:
        bounded(torch.zeros(3, device="meta"), -8.0, 8.0)
        assert copies.seen == 0
        torch.zeros(()).to("meta")
        assert copies.seen == 1


@pytest.mark.parametrize("parametrisation", ["log_alpha", "log_sigma2", "log_sigma"])
def test_alpha_never_dies_on_its_bound(parametrisation):
    # T4.5: it starts at the bound of alpha = 1, is pushed past it, and comes back when the gradient turns.
    alpha = LearntAlpha(torch.zeros(1), parametrisation, KINGMA)
    (parameter,) = alpha.parameters()
    optimizer = torch.optim.Adam([parameter], lr=0.1)

    def step(loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return alpha().item()

    assert step(alpha().sum()) < 1  # the bound itself trains
    for _ in range(50):
        step(alpha.kl())  # which falls all the way to alpha = 1
    assert alpha().item() == 1
    for _ in range(20):
        step(alpha().sum())
    assert alpha().item() < 0.9


def test_additive_alpha_never_dies_on_its_bound():
    posterior = Additive(torch.tensor([0.5]), torch.tensor([3.0]), "log_sigma2", KINGMA)
    assert posterior.variance.item() == pytest.approx(0.25)  # alpha = 1
    posterior.variance.sum().backward()
    assert posterior.log_sigma2.grad.item() > 0  # a step against it leads back inside
    posterior.zero_grad()
    posterior.kl().backward()
    assert posterior.log_sigma2.grad.item() == 0  # which would lead further out


@pytest.mark.parametrize(("shape", "shared", "times"), [((4, 1), False, 6), ((1, 1), False, 24), ((24,), True, 1)])
def test_tied_alphas_pay_for_each_weight_and_shared_noise_once(shape, shared, times):
    # T4.4
    alpha = LearntAlpha(torch.full(shape, -1.0, dtype=F64), "log_alpha", LOG_UNIFORM)
    over = (lambda values: values.view(4, 6)) if shared else unchanged
    posterior = Multiplicative(torch.randn(4, 6, dtype=F64), alpha, over, shared)
    one = log_uniform_kl(torch.tensor(1.0, dtype=F64).exp()).item()
    assert posterior.kl().item() == pytest.approx(times * math.prod(shape) * one, rel=1e-9)


def test_log_alpha_of_every_posterior():
    gaussian = Gaussian(torch.tensor([0.5, 0.0]), torch.tensor([inverse_softplus(0.1)] * 2))
    assert gaussian.log_alpha()[0].item() == pytest.approx(2 * math.log(0.1 / 0.5), rel=1e-5)
    assert gaussian.log_alpha()[1].item() == math.inf
    additive = Additive(torch.tensor([0.5]), torch.tensor([-3.0]), "log_sigma2", LOG_UNIFORM)
    assert additive.log_alpha().item() == pytest.approx(-3 - 2 * math.log(0.5), rel=1e-5)
    tiny = Additive(torch.tensor([1e-30]), torch.tensor([-3.0]), "log_sigma2", LOG_UNIFORM)  # its square underflows
    assert tiny.log_alpha().item() == pytest.approx(-3 + 60 * math.log(10), rel=1e-5)
    alpha = LearntAlpha(torch.tensor([[2.0], [-1.0]]), "log_alpha", LOG_UNIFORM)
    tied = Multiplicative(torch.tensor([[0.0, 1e-25], [1.0, 2.0]]), alpha, unchanged, shared=False)
    assert tied.log_alpha().tolist() == [[2, 2], [-1, -1]]
    assert Point(torch.ones(2)).log_alpha().tolist() == [-math.inf, -math.inf]


def test_a_pruned_mean_is_zero_until_its_signal_is_back():
    mu = torch.tensor([0.5, 0.5, -0.5])
    log_sigma2 = mu.square().log() + torch.tensor([2.9, 3.1, 3.1])
    posterior = Additive(mu, log_sigma2, "log_sigma2", LOG_UNIFORM, prune_above=3.0)
    assert posterior.mean.tolist() == [0.5, 0, 0]
    count = 10_000
    with torch.no_grad():
        draws = torch.stack([posterior.sample() for _ in range(count)])
    error = 5 * (posterior.variance / count).sqrt()
    assert ((draws.mean(0) - posterior.mean).abs() <= error).all()
    posterior.mean.sum().backward()
    assert posterior.mu.grad.tolist() == [1, 0, 0]  # only the KL moves a mean that is pruned
    posterior.zero_grad()
    posterior.kl().backward()
    assert (posterior.mu.grad != 0).all()
    with torch.no_grad():
        posterior.log_sigma2[1] -= 0.2
    assert posterior.mean.tolist() == [0.5, 0.5, 0]


def test_at_the_limit_of_alpha_the_kl_moves_nothing():
    # alpha stays 1 when mu moves, so the KL cannot fall and must not erase the weights.
    posterior = Additive(0.05 * torch.randn(2000), torch.zeros(2000), "log_sigma2", KINGMA)
    assert posterior.kl().item() == pytest.approx(0, abs=1e-2)
    posterior.kl().backward()
    assert posterior.mu.grad.abs().max().item() == 0
