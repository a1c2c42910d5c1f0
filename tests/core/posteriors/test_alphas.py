"""Additive and multiplicative posteriors: finite everywhere, and alive on the bounds of alpha."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bnn_lightning.core.kernels.bounded import bounded
from bnn_lightning.core.posteriors import (
    HIERARCHICAL,
    KINGMA,
    LOG_UNIFORM,
    Additive,
    Gaussian,
    LearntAlpha,
    Multiplicative,
    Point,
    identity,
    log_uniform_kl,
)
from bnn_lightning.core.priors import Normal

F64 = torch.float64


def inverse_softplus(sigma):
    return math.log(math.expm1(sigma))


@pytest.mark.parametrize("divergence", [LOG_UNIFORM, HIERARCHICAL, KINGMA])
@pytest.mark.parametrize("start", [-110.0, -40.0, 40.0])
@pytest.mark.parametrize("parametrisation", ["log_sigma2", "log_sigma"])
def test_additive_kl_is_finite_at_a_mean_of_zero(parametrisation, start, divergence):
    # log theta^2 is infinite at 0, and a clamp's gradient there is NaN. The second weight is beyond log alpha = -100.
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
    # log(1 + exp(-log alpha)) overflows below -88 when it is written as it stands.
    alpha = LearntAlpha(torch.full((2,), start), "log_alpha", divergence)
    posterior = Multiplicative(torch.zeros(2), alpha, identity, shared=False)
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
    # It starts at the bound of alpha = 1, is pushed past it, and comes back when the gradient turns.
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
    # Weights that share an alpha have noise of their own, and a KL each; one noise for all of them has one KL.
    alpha = LearntAlpha(torch.full(shape, -1.0, dtype=F64), "log_alpha", LOG_UNIFORM)
    over = (lambda values: values.view(4, 6)) if shared else identity
    posterior = Multiplicative(torch.randn(4, 6, dtype=F64), alpha, over, shared)
    kl_of_a_weight = log_uniform_kl(torch.tensor(1.0, dtype=F64).exp()).item()
    assert posterior.kl().item() == pytest.approx(times * math.prod(shape) * kl_of_a_weight, rel=1e-9)


def test_every_posterior_tells_its_log_alpha():
    gaussian = Gaussian(torch.tensor([0.5, 0.0]), torch.tensor([inverse_softplus(0.1)] * 2), Normal())
    assert gaussian.log_alpha()[0].item() == pytest.approx(2 * math.log(0.1 / 0.5), rel=1e-5)
    assert gaussian.log_alpha()[1].item() == math.inf
    additive = Additive(torch.tensor([0.5]), torch.tensor([-3.0]), "log_sigma2", LOG_UNIFORM)
    assert additive.log_alpha().item() == pytest.approx(-3 - 2 * math.log(0.5), rel=1e-5)
    tiny = Additive(torch.tensor([1e-30]), torch.tensor([-3.0]), "log_sigma2", LOG_UNIFORM)  # its square underflows
    assert tiny.log_alpha().item() == pytest.approx(-3 + 60 * math.log(10), rel=1e-5)
    alpha = LearntAlpha(torch.tensor([[2.0], [-1.0]]), "log_alpha", LOG_UNIFORM)
    tied = Multiplicative(torch.tensor([[0.0, 1e-25], [1.0, 2.0]]), alpha, identity, shared=False)
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
