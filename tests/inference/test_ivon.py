"""IVON: its steps against the paper's in numpy, exact posteriors, what it moves and what it leaves alone."""

import io
import math
import re
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from bnn_lightning import (
    BBB,
    IVON,
    LRT,
    BayesianModule,
    Flipout,
    IVONOptimizer,
    LearntScale,
    MCDropout,
    Normal,
    bayesianize,
    kl,
    random_tensors,
    sampling,
)
from bnn_lightning.inference import TrainingFacts
from tests.training.helpers import digits, fit


@contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture
def in_float64():
    with float64():
        yield


def test_steps_are_those_of_the_paper(in_float64):
    torch.manual_seed(0)
    inputs, targets = torch.randn(12, 3), torch.randn(12, 2)
    settings = {"prior_sigma": 0.4, "prior_mu": 0.2}
    net = bayesianize(nn.Linear(3, 2, bias=False), BBB(**settings))
    lr, beta1, beta2, h0, size, temperature, clip, steps = 0.3, 0.8, 0.9, 0.7, 50, 0.5, 0.9, 7
    optimizer = IVONOptimizer(net, size, steps, lr, beta1, beta2, h0, clip, temperature, warmup=0.0)
    m, h, g = net.weight.mu.detach().numpy().copy(), np.full((2, 3), h0), np.zeros((2, 3))
    scale, delta = size / temperature, temperature / (size * 0.4**2)
    clipped = 0
    for t in range(1, steps + 1):
        optimizer.zero_grad()
        torch.manual_seed(t)
        ((net(inputs) - targets) ** 2).sum(1).mean().backward()
        optimizer.step()
        # Shen et al. 2024, algorithm 1, in m and h; the gradient of the squares by hand.
        torch.manual_seed(t)
        sigma = 1 / np.sqrt(scale * (h + delta))
        w = m + sigma * torch.randn(2, 3).numpy()
        gradient = 2 * (inputs.numpy() @ w.T - targets.numpy()).T @ inputs.numpy() / 12
        curvature = gradient * (w - m) / sigma**2
        g = beta1 * g + (1 - beta1) * gradient
        h = beta2 * h + (1 - beta2) * curvature + 0.5 * (1 - beta2) ** 2 * (h - curvature) ** 2 / (h + delta)
        direction = (g / (1 - beta1**t) + delta * (m - 0.2)) / (h + delta)
        clipped += (np.abs(direction) > clip).sum()
        m = m - lr * np.clip(direction, -clip, clip)
        np.testing.assert_allclose(net.weight.mu.detach().numpy(), m, rtol=1e-10)
        np.testing.assert_allclose(net.weight.sigma.detach().numpy(), 1 / np.sqrt(scale * (h + delta)), rtol=1e-9)
    assert 0 < clipped < 6 * steps


def test_curvature_is_the_slope_in_sigma_over_sigma(in_float64):
    # g (w - m) / sigma^2 = (dl/dsigma) / sigma for w = m + sigma eps, so that any estimator of dl/dsigma will do.
    torch.manual_seed(0)
    net = bayesianize(nn.Linear(4, 3), BBB())
    weight, bias = net.weight.sample(), net.bias.sample()
    loss = torch.logsumexp(nn.functional.linear(torch.randn(5, 4), weight, bias), 1).mean()
    for part, sample in ((net.weight, weight), (net.bias, bias)):
        g, slope = torch.autograd.grad(loss, (sample, part.rho), retain_graph=True)
        expected = g * (sample - part.mu) / part.sigma**2
        torch.testing.assert_close(slope / part.rho.sigmoid() / part.sigma, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", [BBB, Flipout, LRT])
def test_finds_the_mean_field_optimum_of_linear_regression(method, in_float64):
    torch.manual_seed(0)
    count, noise, prior_sigma = 64, 0.5, 0.8
    mixing = torch.tensor([[1.0, 0.4, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 1.5]])
    inputs = torch.randn(count, 3) @ mixing
    targets = inputs @ torch.tensor([[0.7], [-0.4], [0.1]]) + noise * torch.randn(count, 1)
    precision = inputs.T @ inputs / noise**2 + torch.eye(3) / prior_sigma**2
    mean = torch.linalg.solve(precision, inputs.T @ targets / noise**2).T
    steps, beta2 = 8000, 0.9985
    net = bayesianize(nn.Linear(3, 1, bias=False), method(prior_sigma=prior_sigma))
    optimizer = IVONOptimizer(net, count, steps, lr=0.02, beta2=beta2, h0=1.0, clip=10.0)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    found = []
    for step in range(steps):
        optimizer.zero_grad()
        ((net(inputs) - targets) ** 2).mean().div(2 * noise**2).backward()
        optimizer.step()
        decay.step()
        if step >= steps // 2:
            found.append(net.weight.sigma.detach().square().reciprocal())
    # For quadratic losses h has, over eps, the variance a_ii^2 (2 + sum_j (a_ij sigma_j)^2 / (a_ii sigma_i)^2) with
    # a = precision / N: less under Flipout and LRT, whose examples have noise of their own.
    sigma = precision.diagonal().rsqrt()
    ratio = (precision * sigma).square() / (precision.diagonal() * sigma).square().unsqueeze(1)
    variance = 2 + ratio.sum(1) - 1
    # The average over n steps of an average with time constant 1 / (1 - beta2) has the variance of n independent ones.
    tolerance = 5 * (variance / len(found)).sqrt()
    # The term that keeps the precision positive raises it by a second-order share, (1 - beta2) / 2 of that variance.
    bias = 0.5 * (1 - beta2) * variance
    error = (torch.stack(found).mean(0)[0] / precision.diagonal() - 1 - bias).abs()
    assert torch.all(error < tolerance), (error, tolerance)
    # The mean is averaged over the last steps by its momentum and its decaying rate: within a part of sigma.
    assert torch.all((net.weight.mu - mean).abs()[0] < 0.2 * sigma)


def test_precision_stays_positive_for_any_curvature(in_float64):
    net = bayesianize(nn.Linear(2, 1, bias=False), BBB())
    optimizer = IVONOptimizer(net, 10, 100, beta2=0.5)
    for slope in (1e6, -1e6, 3.0, -3.0, -1e-3) * 4:
        net.weight.mu.grad, net.weight.rho.grad = torch.zeros(1, 2), torch.tensor([[slope, -slope]])
        optimizer.step()
        precision = optimizer.state[net.weight.mu]["precision"]
        assert torch.all(precision > 0)
        assert torch.isfinite(net.weight.rho).all()


def test_parameters_that_are_not_random_take_steps_of_adam():
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2), nn.Linear(2, 2))

    net = bayesianize(network(), BBB(), only="2")
    net[3].requires_grad_(False)
    optimizer = IVONOptimizer(net, 100, 50, warmup=0.0, plain_lr=0.01)
    assert [len(group["params"]) for group in optimizer.param_groups] == [4, 4]
    twin = network()
    twin[3].requires_grad_(False)
    adam = torch.optim.Adam([*twin[0].parameters(), *twin[1].parameters()], lr=0.01)
    before = [part.mu.detach().clone() for _, part in random_tensors(net)]
    for seed in range(5):
        torch.manual_seed(seed)
        net(torch.randn(8, 4)).square().mean().backward()
        for index in (0, 1):
            for mine, other in zip(net[index].parameters(), twin[index].parameters(), strict=True):
                other.grad = mine.grad.clone()
        optimizer.step()
        adam.step()
        optimizer.zero_grad()
    for index in (0, 1, 3):
        for mine, other in zip(net[index].parameters(), twin[index].parameters(), strict=True):
            assert torch.equal(mine, other)
    assert not any(torch.equal(part.mu, old) for (_, part), old in zip(random_tensors(net), before, strict=True))


def test_frozen_posteriors_stay():
    net = bayesianize(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), BBB())
    net[0].requires_grad_(False)
    frozen = {name: value.clone() for name, value in net[0].state_dict().items()}
    optimizer = IVONOptimizer(net, 100, 10)
    net(torch.randn(5, 4)).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(value, net[0].state_dict()[name]) for name, value in frozen.items())


@pytest.mark.parametrize("frozen", ["mu", "rho"])
def test_means_and_widths_are_trained_together(frozen):
    net = bayesianize(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), BBB())
    getattr(net[1].weight, frozen).requires_grad_(False)
    with pytest.raises(
        ValueError,
        match=rf"^net must train mu and rho of a tensor together for IVON, got a frozen {frozen} of 1\.weight; freeze",
    ):
        IVONOptimizer(net, 100, 10)


def test_state_is_laid_out_in_memory_like_the_means():
    net = bayesianize(nn.Conv2d(3, 4, 2), BBB()).to(memory_format=torch.channels_last)
    state = IVONOptimizer(net, 100, 10).state[net.weight.mu]
    assert not net.weight.mu.is_contiguous()
    assert state["precision"].stride() == state["momentum"].stride() == net.weight.mu.stride()


def test_gradients_of_several_samples_add_up(in_float64):
    # The mean over samples and batches, as autograd adds it up, is one step.
    def stepped(parts):
        torch.manual_seed(0)
        net = bayesianize(nn.Linear(3, 2), Flipout())
        optimizer = IVONOptimizer(net, 20, 10)
        torch.manual_seed(1)
        losses = [net(torch.ones(4, 3)).square().mean() for _ in range(4)]
        for some in torch.stack(losses).split(4 // parts):
            (some.sum() / 4).backward(retain_graph=True)
        optimizer.step()
        return net.state_dict()

    for name, value in stepped(1).items():
        torch.testing.assert_close(stepped(4)[name], value)


def test_sigma_begins_at_a_fraction_of_the_prior_or_of_the_weights():
    net = bayesianize(nn.Sequential(nn.Linear(8, 4), nn.Linear(20_000, 1)), BBB(prior_sigma=0.4))
    IVONOptimizer(net, 100, 2000)
    for part in (net[0].weight, net[0].bias, net[1].bias):
        torch.testing.assert_close(part.sigma, torch.full_like(part.mu, 0.02))
    torch.testing.assert_close(net[1].weight.sigma, torch.full((1, 20_000), 0.2 * 0.01))
    IVONOptimizer(net, 100, 2000, h0=3.0)
    torch.testing.assert_close(net[0].bias.sigma, torch.full((4,), (300 + 1 / 0.4**2) ** -0.5))


def test_memory_of_the_precision_is_half_of_the_run(in_float64):
    def precision_after(steps, beta2):
        torch.manual_seed(0)
        net = bayesianize(nn.Linear(2, 1, bias=False), BBB())
        optimizer = IVONOptimizer(net, 10, steps, beta2=beta2)
        net.weight.mu.grad, net.weight.rho.grad = torch.zeros(1, 2), torch.ones(1, 2)
        optimizer.step()
        return optimizer.state[net.weight.mu]["precision"]

    torch.testing.assert_close(precision_after(1000, None), precision_after(7, 0.998))
    assert not torch.allclose(precision_after(500, None), precision_after(7, 0.998), rtol=1e-6)


def test_rates_rise_over_the_warm_up():
    moves = []
    for warmup in (0.5, 0.0):
        net = bayesianize(nn.Linear(1, 1, bias=False), BBB())
        optimizer = IVONOptimizer(net, 100, 8, lr=1.0, beta1=0.0, clip=1e-3, warmup=warmup)
        positions = [net.weight.mu.item()]
        for _ in range(6):
            net.weight.mu.grad, net.weight.rho.grad = torch.full((1, 1), 1e4), torch.zeros(1, 1)
            optimizer.step()
            positions.append(net.weight.mu.item())
        moves.append(-np.diff(positions))
    np.testing.assert_allclose(moves[0], 1e-3 * np.array([0.25, 0.5, 0.75, 1, 1, 1]), rtol=1e-3)
    np.testing.assert_allclose(moves[1], 1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_and_width_go_on_as_they_were(dtype):
    def trained(stop):
        torch.manual_seed(0)
        net = bayesianize(nn.Linear(4, 3), BBB()).to(dtype)
        optimizer = IVONOptimizer(net, 100, 20)
        for seed in range(6):
            if seed == stop:
                saved = [copy_of(each.state_dict()) for each in (net, optimizer)]
                net = bayesianize(nn.Linear(4, 3), BBB()).to(dtype)
                net.load_state_dict(saved[0])
                optimizer = IVONOptimizer(net, 100, 20)
                optimizer.load_state_dict(saved[1])
            torch.manual_seed(seed)
            optimizer.zero_grad()
            net(torch.randn(5, 4).to(dtype)).square().mean().backward()
            optimizer.step()
        return net.state_dict() | {"precision": optimizer.state[net.weight.mu]["precision"]}

    expected, actual = trained(None), trained(3)
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())


def copy_of(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


class Own(Normal):
    """A prior of somebody's own, whose density may be any."""


def test_refuses_what_it_cannot_learn():
    net = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    cases = {
        "method must be BBB, Flipout or LRT for IVON, which learns their posteriors, got null.": None,
        "method must be BBB, Flipout or LRT with its own Gaussian posterior for IVON, got a Multiplicative for "
        "1.weight.": MCDropout(),
        "prior must be normal for IVON, got LearntScale; use Variational.": BBB(prior=LearntScale()),
        "prior must be normal for IVON, got Own; use Variational.": BBB(prior=Own()),
    }
    for sentence, method in cases.items():
        with pytest.raises(ValueError, match=re.escape(sentence)):
            BayesianModule(net, method, IVON())
    for setting, sentence in {
        "lr": "lr must be a positive number, got -1.",
        "beta2": "beta2 must be from 0 to below 1, got -1.",
        "samples": "samples must be 1 or more, got -1.",
    }.items():
        with pytest.raises(ValueError, match=re.escape(sentence)):
            IVON(**{setting: -1})
    with pytest.raises(ValueError, match=r"^steps must be the number of steps of the run, known before"):
        IVONOptimizer(bayesianize(net, BBB()), 10, None).step()
    frozen = bayesianize(net, BBB()).requires_grad_(False)
    with pytest.raises(ValueError, match=r"^net must have random weights to train"):
        IVONOptimizer(frozen, 10, 10)


def test_clipped_gradients_are_refused():
    net = IVON().prepare(nn.Linear(4, 3), BBB(), "*")
    IVON().make_optimizer(net, TrainingFacts(10, 1, can_fuse=False))
    with pytest.raises(ValueError, match=r"^trainer\.gradient_clip_val must be null for IVON, which learns sigma from"):
        IVON().make_optimizer(net, TrainingFacts(10, 1, can_fuse=False, clips_gradients=True))


def test_mean_weights_have_no_curvature_to_learn_from():
    net = bayesianize(nn.Linear(4, 3), BBB())
    optimizer = IVONOptimizer(net, 10, 10)
    with sampling(net, False):
        net(torch.randn(5, 4)).sum().backward()
    with pytest.raises(ValueError, match=r"^net must draw its weights in the forward pass of a training step"):
        optimizer.step()


@pytest.mark.parametrize("method", [BBB(prior_sigma=0.3), LRT(prior_sigma=0.3), Flipout(prior_sigma=0.3)])
def test_a_module_trains_and_its_elbo_is_that_of_its_posterior(method):
    torch.manual_seed(0)
    model = BayesianModule(
        nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10)), method, IVON(lr=2.0, samples=2)
    )
    trainer = fit(model, digits(batch_size=20), epochs=5)
    assert model.summary.score > 0.6
    assert model.summary.kl_weight == 1.0
    divergence = kl(model.network).item()
    logged = trainer.callback_metrics
    assert logged["val/kl"].item() == pytest.approx(divergence, rel=1e-6)
    assert logged["val/elbo_per_n"].item() == pytest.approx(-(logged["val/loss"].item()), rel=1e-6)
    assert logged["val/loss"].item() - divergence / 400 > 0
    sigmas = torch.cat([part.sigma.flatten() for _, part in random_tensors(model.network)])
    assert sigmas.std() / sigmas.mean() > 0.01


def test_temperature_is_the_weight_of_the_kl():
    model = BayesianModule(nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)), BBB(), IVON(temperature=0.1))
    fit(model)
    assert model.summary.kl_weight == pytest.approx(0.1)
    size = model.trainer.optimizers[0].param_groups[0]["effective_size"]
    assert size == pytest.approx(400 / 0.1)
    assert math.isfinite(model.summary.elbo_per_n)
