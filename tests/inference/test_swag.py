"""SWAG: its Gaussian is that of a recorded path of weights, and its rate the published one."""

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.optim.swa_utils import update_bn

from bnn_lightning import BBB, SWAG, BayesianModule, Categorical, Joint, random_tensors, sample_together
from bnn_lightning.core.posteriors import PathGaussian
from bnn_lightning.core.running_statistics import recompute_running_statistics
from bnn_lightning.inference import Step
from bnn_lightning.inference.swag import Averages
from tests.training.helpers import digits, fit

F64 = torch.float64
STEPS = 8  # of an epoch: 400 images in batches of 50


def published(path, rank):
    """Mean and covariance that algorithm 1 of Maddox et al. gives for weights (models, numbers), in numpy."""
    mean, mean_square, deviations = np.zeros(path.shape[1]), np.zeros(path.shape[1]), []
    for number, weights in enumerate(path):
        mean = (number * mean + weights) / (number + 1)
        mean_square = (number * mean_square + weights**2) / (number + 1)
        deviations = [*deviations, weights - mean][-rank:]
    low_rank = np.stack(deviations, 1)
    diagonal = np.diag(mean_square - mean**2)
    return mean, 0.5 * diagonal + low_rank @ low_rank.T / (2 * (len(deviations) - 1))


@pytest.mark.parametrize("count", [3, 9])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_mean_and_covariance_of_draws_are_those_of_the_path(count, scale):
    joint, path = Joint(), torch.randn(count, 5, dtype=F64) + torch.arange(5)
    parts = [PathGaussian(torch.zeros(2, 1, dtype=F64), joint, 4), PathGaussian(torch.zeros(3, dtype=F64), joint, 4)]
    for weights in path:
        for part, values in zip(parts, (weights[:2].view(2, 1), weights[2:]), strict=True):
            with torch.no_grad():
                part.mu.copy_(values)
            assert part.variance.eq(0).all()
            torch.testing.assert_close(part.sample(), part.mu)
            part.collect()
    for part in parts:
        part.form(scale)
    mean, covariance = (torch.from_numpy(value) for value in published(path.numpy(), 4))
    covariance = scale * covariance
    torch.testing.assert_close(torch.cat([part.mean.flatten() for part in parts]).detach(), mean)
    torch.testing.assert_close(torch.cat([part.variance.flatten() for part in parts]), covariance.diagonal())
    with torch.no_grad():
        draws = torch.stack([torch.cat([part.flatten() for part in sample_together(parts)]) for _ in range(20_000)])
    measured = (draws - mean).T @ (draws - mean) / len(draws)
    variances = covariance.diagonal()
    error = ((torch.outer(variances, variances) + covariance.square()) / len(draws)).sqrt()
    assert torch.all((measured - covariance).abs() < 5 * error)
    assert torch.all((draws.mean(0) - mean).abs() < 5 * (variances / len(draws)).sqrt())


class Path(Callback):
    """Keeps the weights before each step, and its rate."""

    def __init__(self):
        self.weights, self.rates = [], []

    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.weights.append(weights_of(model.network))


class Watched(SWAG):
    """SWAG that writes down the weights after the last step of each epoch."""

    def after_epoch(self, net):
        ends.append(weights_of(net))


ends = []


def weights_of(net):
    return {name: value.detach().double().flatten() for name, value in net.named_parameters()}


class Scaled(nn.Module):
    """With a norm layer, and a parameter that is of no layer."""

    def __init__(self):
        super().__init__()
        self.pool, self.norm, self.fc = nn.MaxPool2d(4), nn.BatchNorm1d(64), nn.Linear(64, 10)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.gain * self.fc(self.norm(self.pool(x).flatten(1)))


def trained(epochs=3, callbacks=(), **settings):
    torch.manual_seed(0)
    settings = {"collect_after": 1 / 3, "rank": 3, "collections_per_epoch": 4} | settings
    model = BayesianModule(Scaled(), inference=Watched(**settings))
    fit(model, digits(batch_size=50), epochs=epochs, callbacks=list(callbacks))
    return model


def test_a_run_collects_its_path_and_ends_at_its_mean():
    path = Path()
    model = trained(callbacks=[path])
    # Every second step after the first epoch, and the last one.
    collected = [path.weights[step] for step in range(STEPS + 2, 3 * STEPS, 2)] + [ends[-1]]
    tensors = dict(random_tensors(model.network))
    assert set(tensors) == {"norm.weight", "norm.bias", "fc.weight", "fc.bias"}
    for name, part in tensors.items():
        assert int(part.collected) == len(collected) == 8
        recorded = torch.stack([weights[f"{name}.mu"] for weights in collected])
        mean, covariance = (torch.from_numpy(value.copy()) for value in published(recorded.numpy(), 3))
        torch.testing.assert_close(part.mean.detach().double().flatten(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(part.variance.double().flatten(), covariance.diagonal(), rtol=1e-3, atol=1e-10)
    # What is of no layer is averaged, and not random.
    gains = torch.stack([weights["gain"] for weights in collected])
    assert next(module for module in model.network.modules() if isinstance(module, Averages)).names == ("gain",)
    assert model.network.gain.item() == pytest.approx(gains.mean().item(), rel=1e-6)


def test_the_rate_is_the_published_one_by_the_step():
    path = Path()
    trained(callbacks=[path], collect_after=0.5, lr=0.1, swa_lr=0.02)
    expected = []
    for step in range(24):
        t = step / 12
        expected.append(0.1 if t <= 0.5 else 0.1 - 0.08 * (t - 0.5) / 0.4 if t <= 0.9 else 0.02)
    assert path.rates == pytest.approx(expected)


def test_two_batches_to_a_step_are_collected_once():
    torch.manual_seed(0)
    model = BayesianModule(Scaled(), inference=SWAG(collect_after=0.5, rank=3, collections_per_epoch=4))
    fit(model, digits(batch_size=50), epochs=2, accumulate_grad_batches=2)
    assert {int(part.collected) for _, part in random_tensors(model.network)} == {4}


@pytest.mark.parametrize(("steps", "collections"), [(15, 8), (13, 8), (10, 3), (7, 7), (6, 1), (3, 5)])
def test_weights_are_collected_as_often_in_an_epoch_as_asked(steps, collections):
    inference, likelihood = SWAG(collect_after=0.0, rank=2, collections_per_epoch=collections), Categorical()
    net = inference.prepare(nn.Sequential(nn.Linear(2, 2)), None, "*")
    x, y = torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)
    for done in range(2 * steps):
        inference.loss(net, x, y, likelihood, Step(done // steps, done % steps, steps, 2, 4))
    inference.after_fit(net, [], likelihood)
    assert {int(part.collected) for _, part in random_tensors(net)} == {2 * min(collections, steps)}


def test_a_longer_run_begins_its_collection_anew():
    model = trained(epochs=2, collect_after=0.5)
    again = BayesianModule(Scaled(), inference=SWAG(collect_after=2 / 3, rank=3, collections_per_epoch=4))
    again.load_state_dict(model.state_dict())
    net = again.network
    before = {int(part.collected) for _, part in random_tensors(net)}
    fit(again, digits(batch_size=50), epochs=3)
    assert before == {4}
    assert {int(part.collected) for _, part in random_tensors(net)} == {4}  # with the first four it would be five


def test_a_longer_run_has_no_posterior_before_its_first_collection():
    model = trained(epochs=2)
    net = model.network
    assert all((part.variance > 0).any() for _, part in random_tensors(net))
    x, y = torch.randn(4, 1, 32, 32), torch.zeros(4, dtype=torch.int64)
    model.inference.loss(net, x, y, model.likelihood, Step(2, 0, 8, 9, 400))
    assert all((part.variance == 0).all() for _, part in random_tensors(net))


def test_a_run_that_goes_on_after_its_end_keeps_nothing_of_its_first_collection():
    """Weights are the number of steps done, so that their mean says which ones were collected."""
    inference, likelihood = SWAG(collect_after=0.5, rank=3), Categorical()
    net = inference.prepare(nn.Sequential(nn.Linear(2, 2)), None, "*")

    def set_weights(number):
        for part in dict(random_tensors(net)).values():
            part.mu.data.fill_(number)

    def run(first, last):
        for done in range(2 * first, 2 * last):
            set_weights(done)
            step = Step(done // 2, done % 2, 2, last, 4)
            inference.loss(net, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), likelihood, step)
        set_weights(2 * last)
        inference.after_fit(net, [], likelihood)
        (found,) = {(int(part.collected), part.average.mean().item()) for _, part in random_tensors(net)}
        return found

    assert run(0, 10) == (5, pytest.approx((12 + 14 + 16 + 18 + 20) / 5))
    assert run(10, 15) == (6, pytest.approx((21 + 23 + 25 + 27 + 29 + 30) / 6))
    assert run(15, 16) == (2, pytest.approx((30 + 32) / 2))


@pytest.mark.parametrize("is_random", [True, False])
def test_statistics_of_batch_norm_are_those_of_torchs_update(is_random):
    plain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
    net = SWAG().prepare(plain, None, "*") if is_random else copy.deepcopy(plain)  # without noise before it is formed
    batches = [(torch.randn(6, 1, 8, 8) + shift, torch.zeros(6)) for shift in range(3)]
    recompute_running_statistics(net.train(), batches)
    assert net.training
    update_bn(batches, plain)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(net[1], name), getattr(plain[1], name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_statistics_of_batch_norm_weigh_a_batch_by_its_size(offset):
    x = torch.randn(300, 3, dtype=torch.float64) + offset
    norm = nn.BatchNorm1d(3).double()
    recompute_running_statistics(nn.Sequential(norm).train(), [(part, part) for part in x.split(256)])
    torch.testing.assert_close(norm.running_mean, x.mean(0))
    variance = (256 * x[:256].var(0) + 44 * x[256:].var(0)) / 300
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-5, atol=0)


def test_a_norm_in_two_places_has_the_statistics_of_both_calls():
    norm = nn.BatchNorm1d(3)
    net, x = nn.Sequential(norm, Shifted(), norm).train(), torch.randn(50, 3) * 2 + 1
    recompute_running_statistics(net, [(x, torch.zeros(50))])
    first = nn.functional.batch_norm(x, None, None, training=True) + 5
    expected = (x.mean(0) + first.mean(0)) / 2, (x.var(0) + first.var(0)) / 2
    torch.testing.assert_close((norm.running_mean, norm.running_var), expected, rtol=1e-5, atol=1e-5)


class Shifted(nn.Module):
    def forward(self, x):
        return x + 5


def test_frozen_statistics_stay():
    model = BayesianModule(Scaled(), inference=SWAG(collect_after=0.0, collections_per_epoch=4), freeze="norm")
    fit(model, digits(batch_size=50))
    norm = model.network.norm
    assert torch.equal(norm.running_mean, torch.zeros(64))
    assert dict(random_tensors(model.network))["norm.weight"].variance.eq(0).all()
    assert dict(random_tensors(model.network))["fc.weight"].variance.min() >= 0


def test_what_cannot_be_is_refused_in_a_sentence():
    net = nn.Linear(1000, 100)
    with pytest.raises(ValueError, match=r"^method must be null for SWAG, which brings its own, got BBB\.$"):
        SWAG().prepare(net, BBB(), "*")
    with pytest.raises(
        ValueError, match=r"^rank must be one for which 100,100 weights take .* got 20, .*; 7 would fit\.$"
    ):
        SWAG(max_gigabytes=0.004).prepare(net, None, "*")
    with pytest.raises(ValueError, match=r"^rank must be 2 or more, got 1\.$"):
        SWAG(rank=1)
    with pytest.raises(ValueError, match=r"^collect_after must be from 0 to below 1, got 1\.0\.$"):
        SWAG(collect_after=1.0)
    with pytest.raises(
        ValueError, match=r"^collections_per_epoch must be so high that 2 or more .* got 1, .* it is 1\.$"
    ):
        trained(epochs=1, collect_after=0.5, collections_per_epoch=1)
