"""VBLL: its bound against many samples, its loss term by term, and what it begins from."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import InverseGamma
from torch.nn.functional import cross_entropy, log_softmax, softplus

from bnn_lightning import BBB, VBLL, BayesianModule, Categorical, Step, draw, kl, random_tensors
from bnn_lightning.inference.last_layer import random_layer
from bnn_lightning.inference.vbll import bound_on_nll, variance_of_outputs
from tests.training.helpers import digits, fit

F64 = torch.float64
STEP = Step(epoch=0, step=0, steps=1, epochs=1, num_train=50)


@pytest.mark.parametrize("std", [0.01, 0.3, 2.0])
def test_the_bound_is_above_the_expected_nll_and_close_for_small_variances(std):
    mean, variance = 2 * torch.randn(20, 4, dtype=F64), std**2 * torch.rand(20, 4, dtype=F64)
    y = torch.randint(0, 4, (20,))
    logits = mean + variance.sqrt() * torch.randn(100_000, 20, 4, dtype=F64)
    samples = -log_softmax(logits, -1)[:, torch.arange(20), y].mean(1)
    expected, error = samples.mean().item(), samples.std().item() / len(samples) ** 0.5
    bound = bound_on_nll(mean, variance, y).item()
    assert bound > expected - 5 * error
    # The expected nll is at least the nll at the means: the gap is at most half of the largest variance.
    assert bound < expected + 0.5 * variance.max().item() + 5 * error
    torch.testing.assert_close(bound_on_nll(mean, torch.zeros_like(mean), y), cross_entropy(mean, y))


def small(covariance, **settings):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5, dtype=F64), nn.Tanh(), nn.Linear(5, 4, dtype=F64))
    inference = VBLL(covariance=covariance, **settings)
    net = inference.prepare(net, None, "*")
    with torch.no_grad():
        for parameter in net[2].parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return inference, net


@pytest.mark.parametrize("form", ["per_datum", "total"])
@pytest.mark.parametrize("covariance", ["diagonal", "dense"])
def test_the_loss_is_bound_and_kl_and_penalty(covariance, form):
    inference, net = small(covariance, kl_weight=0.5, loss_form=form, noise_shape=2.0, noise_scale=0.3)
    x, y = torch.randn(6, 3, dtype=F64), torch.randint(0, 4, (6,))
    terms = inference.loss(net, x, y, Categorical(), STEP)
    features = net[:2](x)
    # Mean and variance of the logits by the linear map that draws of the head are.
    with torch.no_grad():
        draws = [draw(net) for _ in range(20_000)]
        logits = torch.stack([features @ each["2.weight"].T + each["2.bias"] for each in draws])
    variance = variance_of_outputs(net[2], features)
    assert torch.all((logits.var(0) - variance).abs() < 5 * variance * (2 / len(draws)) ** 0.5)
    mean = features @ net[2].weight.mean.T + net[2].bias.mean
    torch.testing.assert_close(terms.outputs, mean.unsqueeze(0))
    nll = ((mean + variance / 2).exp().sum(1).log() - mean[torch.arange(6), y]).mean()
    torch.testing.assert_close(terms.nll, nll)
    torch.testing.assert_close(terms.kl, kl(net))
    noise = softplus(net[2].bias.noise_rho).square()
    prior = InverseGamma(torch.tensor(2.0, dtype=F64), torch.tensor(0.3, dtype=F64))
    penalty = -(prior.log_prob(noise) - prior.log_prob(torch.ones_like(noise)) - 0.3).sum()
    expected = nll + (0.5 * kl(net) + penalty) / 50
    torch.testing.assert_close(terms.loss, 50 * expected if form == "total" else expected)
    terms.loss.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_noise_stays_above_zero_for_its_penalty():
    # d/dv of the bound is positive for each logit: without the penalty the noise would fall without end.
    inference, _ = small("diagonal")
    x, y = torch.randn(50, 3, dtype=F64), torch.randint(0, 4, (50,))
    found = {}
    for scale in (1e-12, 1.0):
        inference = replace(inference, noise_scale=scale, noise_shape=1e-12)
        _, net = small("diagonal")
        optimizer = torch.optim.Adam(net.parameters(), 0.05)
        for _ in range(300):
            optimizer.zero_grad()
            inference.loss(net, x, y, Categorical(), STEP).loss.backward()
            optimizer.step()
        found[scale] = softplus(net[2].bias.noise_rho).max().item()
    assert found[1e-12] < 1e-3
    assert found[1.0] > 0.1


def digits_network():
    return nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


@pytest.mark.parametrize("covariance", ["diagonal", "dense"])
def test_a_frozen_backbone_stays_and_the_head_learns(covariance):
    torch.manual_seed(0)
    model = BayesianModule(digits_network(), inference=VBLL(lr=0.01, covariance=covariance), freeze="2")
    backbone = model.network[2].weight.detach().clone()
    before = {name: part.mean.detach().clone() for name, part in random_tensors(model.network)}
    trainer = fit(model, epochs=2)
    assert torch.equal(model.network[2].weight, backbone)
    for name, part in random_tensors(model.network):
        assert not torch.allclose(part.mean, before[name])
        assert name in ("4.weight", "4.bias")
    assert model.objective == "elbo"
    assert trainer.callback_metrics["train/elbo_per_n"] < 0
    assert trainer.callback_metrics["val/elbo_per_n"] > -10


@pytest.mark.parametrize("covariance", ["diagonal", "dense"])
def test_weights_of_a_deterministic_twin_become_the_means(covariance, tmp_path):
    torch.manual_seed(0)
    twin = digits_network()
    torch.save(twin.state_dict(), tmp_path / "twin.pt")
    model = BayesianModule(digits_network(), inference=VBLL(covariance=covariance), init_from=str(tmp_path / "twin.pt"))
    model.trainer = SimpleNamespace(datamodule=None)
    model.setup("fit")
    layer = random_layer(model.network)
    torch.testing.assert_close(layer.weight.mean, twin[4].weight)
    torch.testing.assert_close(layer.bias.mean, twin[4].bias)
    assert 0.002 < layer.weight.variance.mean() < 0.003  # sigma 0.05
    shifts = draw(model.network)["4.weight"] - layer.weight.mean
    assert shifts.abs().max() > 0


def test_what_cannot_be_is_refused_in_a_sentence():
    net = digits_network()
    with pytest.raises(ValueError, match=r"^method must be null for VBLL, which brings its own, got BBB\.$"):
        VBLL().prepare(net, BBB(), "*")
    with pytest.raises(ValueError, match=r"^layer must be a linear layer, which is trained, got 4, frozen\.$"):
        BayesianModule(net, inference=VBLL(), freeze="4")
    with pytest.raises(ValueError, match=r"^layer must be a linear layer, the bias of which .*, got 0, without one\.$"):
        VBLL().prepare(nn.Sequential(nn.Linear(2, 2, bias=False)), None, "*")
    with pytest.raises(ValueError, match=r"^samples must be 1 for VBLL, whose bound draws nothing, got 2\.$"):
        VBLL(samples=2)
    with pytest.raises(ValueError, match=r"^covariance must be one of diagonal, dense, got 'full'\.$"):
        VBLL(covariance="full")
    with pytest.raises(
        ValueError,
        match=r"^covariance must be one that takes at most max_gigabytes, 4, for 0 with 1000 outputs of 2048 weights, "
        r"got dense, which takes 168 in training; diagonal has two numbers for each weight\.$",
    ):
        VBLL(covariance="dense").prepare(nn.Sequential(nn.Linear(2048, 1000)), None, "*")
    VBLL().prepare(nn.Sequential(nn.Linear(2048, 1000)), None, "*")
    VBLL(covariance="dense", max_gigabytes=200).prepare(nn.Sequential(nn.Linear(8, 10)), None, "*")

    class Other(Categorical):
        pass

    for likelihood, name in (
        (Other(), "Other"),
        (Categorical(label_smoothing=0.1), "Categorical with label smoothing 0.1"),
    ):
        with pytest.raises(ValueError, match=rf"^likelihood must be Categorical for VBLL, .*, got {name}\.$"):
            fit(BayesianModule(digits_network(), inference=VBLL(), likelihood=likelihood), digits())
