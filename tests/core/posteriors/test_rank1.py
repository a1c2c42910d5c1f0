"""Rank-1 factors: their KLs, and weights that are a point times two random vectors."""

import math

import pytest
import torch
from scipy import integrate, stats
from torch import distributions, nn

from bnn_lightning.compression.sparsity import weight_log_alphas
from bnn_lightning.core.conversion import bayesianize, to_plain
from bnn_lightning.core.methods import Rank1
from bnn_lightning.core.posteriors import Point, Rank1Weight
from bnn_lightning.core.posteriors.rank1 import RandomFactor
from bnn_lightning.core.whole_network import kl, objective_of

F64 = torch.float64


def factor(family, count=5):
    made = RandomFactor(torch.randn(count, dtype=F64) - 2, family, 0.3)
    with torch.no_grad():
        made.shift.normal_(0, 0.4)
    return made


def test_the_kl_of_gaussian_factors_is_torchs():
    r = factor("gaussian")
    q = distributions.Normal(1 + r.shift, r.rho.exp().log1p())
    p = distributions.Normal(torch.tensor(1.0, dtype=F64), torch.tensor(0.3, dtype=F64))
    torch.testing.assert_close(r.kl(), distributions.kl_divergence(q, p).sum(), rtol=1e-12, atol=0)


def test_the_kl_of_cauchy_factors_is_the_integral():
    r = factor("cauchy")
    total = 0.0
    for location, scale in zip(r.location.tolist(), r.scale.tolist(), strict=True):
        q, p = stats.cauchy(location, scale), stats.cauchy(1, 0.3)
        # Over the probability under q, from 0 to 1: the tails then have an end.
        total += integrate.quad(lambda u, q=q, p=p: q.logpdf(q.ppf(u)) - p.logpdf(q.ppf(u)), 0, 1, epsabs=1e-10)[0]
    assert r.kl().item() == pytest.approx(total, rel=1e-6)
    equal = RandomFactor(torch.full((3,), math.log(math.expm1(0.3)), dtype=F64), "cauchy", 0.3)
    assert equal.kl().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("family", "law"), [("gaussian", stats.norm), ("cauchy", stats.cauchy)])
def test_draws_have_the_law_of_the_family(family, law):
    r = factor(family, 1)
    draws = r.sample(shape=torch.Size((20_000,))).detach().numpy()
    assert stats.kstest(draws, law(r.location.item(), r.scale.item()).cdf).pvalue > 1e-3


@pytest.mark.parametrize("family", ["gaussian", "cauchy"])
@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 3), lambda: nn.Conv2d(4, 6, 3, groups=2)])
def test_the_kl_is_that_of_the_factors_alone(family, make):
    layer = make()
    net = bayesianize(nn.Sequential(layer), Rank1(family=family))
    scale = torch.tensor({"gaussian": 0.05, "cauchy": 0.001}[family])
    of_one = {
        "gaussian": distributions.kl_divergence(distributions.Normal(1, scale), distributions.Normal(1.0, 0.1)),
        "cauchy": torch.log((scale + 0.1) ** 2 / (4 * scale * 0.1)),
    }[family]
    count = layer.weight.shape[0] + 4
    torch.testing.assert_close(kl(net), count * of_one, rtol=1e-5, atol=0)


def test_weights_of_one_output_share_a_factor_and_those_of_one_input_too():
    layer = bayesianize(nn.Conv2d(4, 6, 3, groups=2).to(F64), Rank1(scale_init=0.5))
    ratio = layer.weight.sample() / layer.weight.mu
    first, second = ratio[:3, :, 0, 0], ratio[3:, :, 0, 0]  # each group of outputs has the inputs of its own
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio), rtol=1e-12, atol=0)
    for block in (first, second):
        assert torch.linalg.svdvals(block)[1] < 1e-12
    assert torch.linalg.svdvals(ratio[:, :, 0, 0])[1] > 1e-3


def test_narrow_factors_keep_their_variance_in_float32():
    layer = bayesianize(nn.Linear(3, 2), Rank1(scale_init=1e-4)).weight
    m_r, m_s, s_r, s_s = (
        value.detach().double()
        for value in (layer.outputs.location, layer.inputs.location, layer.outputs.scale, layer.inputs.scale)
    )
    second = torch.outer(m_r.square() + s_r.square(), m_s.square() + s_s.square())
    expected = layer.mu.detach().double().square() * (second - torch.outer(m_r, m_s).square())
    torch.testing.assert_close(layer.variance.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "make", [lambda: nn.LSTM(5, 4), lambda: nn.Embedding(7, 3), lambda: nn.MultiheadAttention(4, 2)]
)
def test_layers_of_other_kinds_have_factors_along_their_inputs_and_outputs(make):
    layer = bayesianize(make().to(F64), Rank1(scale_init=0.5))
    for name in layer.names:
        weight = layer.tensors().get(name)
        if isinstance(weight, Rank1Weight):
            singular = torch.linalg.svdvals(weight.sample() / weight.mu)
            assert singular[0] > 1
            assert singular[1] < 1e-12
            assert {len(weight.outputs.rho), len(weight.inputs.rho)} == set(weight.mu.shape)
        elif weight is not None:
            assert "bias" in name
            assert isinstance(weight, Point)


def test_examples_have_draws_of_their_own_that_are_those_of_weights():
    # Of 20,000 equal rows each output has the law of a weight draw: products of Gaussians, which are not Gaussian.
    net = bayesianize(nn.Linear(2, 1).to(F64), Rank1(scale_init=0.8))
    x = torch.tensor([[1.0, 2.0]], dtype=F64)
    with torch.no_grad():
        local = net(x.expand(20_000, 2))[:, 0].numpy()
        bias = net.bias.mean
        weights = torch.vmap(lambda _: net.weight.sample() @ x[0] + bias, randomness="different")(torch.zeros(20_000))
    assert stats.ks_2samp(local, weights[:, 0].numpy()).pvalue > 1e-3


def test_cauchy_weights_have_a_location_and_no_variance():
    net = bayesianize(nn.Sequential(nn.Linear(4, 3)), Rank1(family="cauchy"))
    with torch.no_grad():
        net[0].weight.outputs.shift.fill_(0.5)
    torch.testing.assert_close(to_plain(net)[0].weight, 1.5 * net[0].weight.mu)
    sentence = r"^family must be gaussian for variances and signal-to-noise ratios of weights, got cauchy\.$"
    for ask in (lambda: net[0].weight.variance, lambda: weight_log_alphas(net)):
        with pytest.raises(ValueError, match=sentence):
            ask()
    assert objective_of(net) == "regularised"
    assert objective_of(bayesianize(nn.Linear(4, 3), Rank1())) == "elbo"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "laplace"}, "family must be one of gaussian, cauchy, got 'laplace'."),
        ({"scale_init": 0.0}, "scale_init must be a positive scale such as 0.1, got 0.0."),
        ({"prior_scale": float("inf")}, "prior_scale must be a positive scale such as 0.1, got inf."),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        Rank1(**settings)
    assert str(error.value) == message
