"""Predictions by moments: samples of known mean and variance, ensembles, calibration, and a trained LeNet."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from bnn_lightning import (
    BBB,
    LRT,
    BayesianModule,
    Categorical,
    Ensemble,
    GaussianLikelihood,
    MCDropout,
    MomentNetwork,
    Sampler,
    bayesianize,
    mean_field_probabilities,
    mutual_information,
)
from bnn_lightning.data import MNIST5k
from bnn_lightning.evaluation.collect import Collector, calibrations
from bnn_lightning.evaluation.draws import draws_of
from bnn_lightning.evaluation.logit_normals import correlated_samples, samples_with
from bnn_lightning.evaluation.suite import evaluate
from tests.helpers import ROOT

WIDE = {"rho_init": (-1.0, 0.1)}


def network(method=None, outputs=3):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, outputs))
    return plain if method is None else bayesianize(plain, method)


X = torch.randn(7, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("outputs", [1, 10, 200])
def test_samples_have_exactly_the_mean_and_the_variance(outputs):
    mean, variance = torch.randn(5, outputs).double(), torch.rand(5, outputs).double()
    samples = samples_with(mean, variance, 128, seed=3)
    torch.testing.assert_close(samples.mean(0), mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(samples.var(0, correction=0), variance, rtol=1e-12, atol=0)
    assert not torch.equal(samples, samples_with(mean, variance, 128, seed=4))


def test_expected_softmax_is_that_of_many_draws():
    mean, variance = 3 * torch.randn(50, 10), 4 * torch.rand(50, 10)
    found = samples_with(mean, variance, 128, seed=0).softmax(-1).mean(0)
    draws = (mean + variance.sqrt() * torch.randn(20_000, 50, 10)).softmax(-1)
    # With independent draws the standard error would be std / sqrt(128) = .09 std.
    assert ((found - draws.mean(0)).abs().mean() / draws.std(0).mean()) < 0.03
    near = mean_field_probabilities(mean, variance)
    torch.testing.assert_close(near.sum(-1), torch.ones(50))
    assert (near - draws.mean(0)).abs().mean() < 0.03
    torch.testing.assert_close(mean_field_probabilities(mean, torch.zeros(())), mean.softmax(-1))


def test_a_sample_is_one_function_of_the_image():
    net = network(LRT(**WIDE)).train()
    generator = torch.get_rng_state()
    sampler = Sampler(net, 25, "moments", seed=1)
    logits = sampler(X)
    assert logits.shape == (128, 7, 3)
    assert torch.equal(logits, sampler(X, 5))
    torch.testing.assert_close(sampler(X[2:3]), logits[:, 2:3], rtol=1e-5, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not logits.requires_grad
    assert net.training
    assert (mutual_information(logits) > 1e-4).all()
    mean, variance = MomentNetwork(net)(X)
    torch.testing.assert_close(logits.mean(0), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits.var(0, correction=0), variance, rtol=1e-4, atol=1e-6)


def test_an_ensemble_is_the_mixture_of_its_members():
    members = [network(LRT(**WIDE)) for _ in range(3)]
    with torch.no_grad():
        members[1][4].bias.mu += 100
    logits = Sampler(Ensemble(members), 5, "moments")(X)
    assert logits.shape == (3 * 42, 7, 3)
    assert (logits.mean((1, 2)) > 50).tolist() == [False] * 42 + [True] * 42 + [False] * 42


def test_which_networks_have_moments():
    assert draws_of(network(), "moments") == "mean"
    assert draws_of(network(MCDropout()), "moments") == "moments"
    with pytest.raises(ValueError, match=r"^draws must be weights, local or mean for a network with 1 \(Softmax\)"):
        Sampler(bayesianize(nn.Sequential(nn.Linear(2, 2), nn.Softmax(-1)), BBB()), 5, "moments")


def test_half_precision_keeps_small_variances():
    net = network(LRT(rho_init=(-9.0, 0.1)))
    expected = Sampler(net, 1, "moments")(X)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(Sampler(net, 1, "moments")(X), expected)
    assert Sampler(net.half(), 1, "moments")(X).dtype == torch.float32


def test_regression_has_the_variance_of_the_mean_output():
    likelihood = GaussianLikelihood(targets=2)
    net = bayesianize(likelihood.prepare(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))), BBB(**WIDE))
    x = torch.randn(6, 3)
    mean, variance = MomentNetwork(net)(x)
    assert not variance[:, 2:].any()
    summary = likelihood.summary(Sampler(net, 1, "moments")(x))
    torch.testing.assert_close(summary["locations"].mean(1), mean[:, :2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(summary["locations"].var(1, correction=0), variance[:, :2], rtol=1e-4, atol=1e-5)


def test_there_is_no_error_from_draws():
    collector = Collector(Categorical(), Sampler(network(LRT(**WIDE)), 5, "moments"), {}, torch.device("cpu"))
    collector.add(X, torch.arange(7) % 3, 0, 0)
    sets = collector.gather(["test"])
    assert sets["test"].outputs is None
    assert not sets["test"].alternatives
    nll = evaluate(sets, Categorical()).predictions["samples"]["nll"]
    assert nll.draw_error is None
    assert nll.image_error > 0


def test_ways_without_moments_have_no_calibration():
    pool = nn.Sequential(nn.Conv2d(1, 3, 1), nn.AdaptiveAvgPool2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net, labels = bayesianize(pool, LRT(**WIDE)), torch.arange(7) % 3
    samplers = {draws: Sampler(net, 4, draws) for draws in ("mean", "moments")}
    fitted = calibrations(Categorical(), samplers, [(X, labels)], torch.device("cpu"), nullcontext)
    assert list(fitted) == ["mean"]  # 4 does not divide 6 pixels
    fitted = calibrations(Categorical(), samplers, [(X[..., :4, :4], labels)], torch.device("cpu"), nullcontext)
    assert list(fitted) == ["mean", "moments"]


def test_correlated_samples_have_exactly_the_mean_and_the_covariance():
    mean, root = torch.randn(5, 10).double(), torch.randn(5, 10, 4).double()
    covariance = root @ root.mT + torch.diag_embed(0.1 + torch.rand(5, 10).double())
    covariance[0] = 0
    samples = correlated_samples(mean, covariance, 128, seed=3)
    torch.testing.assert_close(samples.mean(0), mean, rtol=0, atol=1e-12)
    centred = samples - mean
    found = torch.einsum("tbk,tbl->bkl", centred, centred) / 128
    torch.testing.assert_close(found.diagonal(dim1=1, dim2=2), covariance.diagonal(dim1=1, dim2=2), atol=1e-12, rtol=0)
    torch.testing.assert_close(found, covariance, rtol=0, atol=1e-4)  # 1e-5 of the correlations is added
    assert torch.equal(samples[:, 0], mean[0].expand(128, 10))


def test_a_trained_lenet_has_the_moments_of_weight_draws():
    # E4. In a pooling window the element of largest mean is taken: right where neighbours see the same pixels, which
    # under one draw of the weights is so in a background, and not where they are independent, as under local draws.
    # Seen were .93 of the outputs' variances, .52 without covariances; and .95 between covariances and the true ones.
    model = BayesianModule.from_checkpoint(ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt")
    data = MNIST5k(image_size=32)
    data.prepare_data()
    data.setup("test")
    x = next(iter(data.test_dataloader()))[0][:50]
    logits = Sampler(model.network, 400, "weights")(x).double()
    with torch.no_grad():
        mean, covariance = (part.double() for part in MomentNetwork(model.network).covariance(x))
    centred = logits - logits.mean(0)
    true = torch.einsum("tbk,tbl->bkl", centred, centred) / 399
    variances, found = (part.diagonal(dim1=1, dim2=2) for part in (true, covariance))
    assert 0.85 < found.sum() / variances.sum() < 1.05
    assert (mean - logits.mean(0)).square().sum() < 0.1 * variances.sum()
    off = ~torch.eye(10, dtype=torch.bool)
    pair = torch.stack([part[:, off].flatten() for part in (true, covariance)])
    assert torch.corrcoef(pair)[0, 1] > 0.8
