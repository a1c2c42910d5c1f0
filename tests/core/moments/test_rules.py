"""Each moment rule against 200,000 draws of its inputs, and of its weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import vmap

from bnn_lightning import BBB, GaussianS, GaussianW, LowRank, MCDropout, Radial, Rank1, bayesianize
from bnn_lightning.core.methods import HierarchicalA, Sparse, VariationalA, VariationalB
from bnn_lightning.core.moments.calls import CALLS
from bnn_lightning.core.moments.network import _rule
from bnn_lightning.core.moments.rules import Moments
from bnn_lightning.core.moments.weights import rule_of_random_layer
from bnn_lightning.networks.residual import FilterResponseNorm, ThresholdedReLU

DRAWS = 200_000
WIDE = {"rho_init": (-1.0, 0.1)}


def inputs(*shape, spread=0.7):
    mean = torch.randn(shape, dtype=torch.float64)
    return Moments(mean, spread * torch.rand(shape, dtype=torch.float64) + 0.05)


def samples(x):
    """``(draws, ...)`` of independent normal inputs ``(1, ...)``."""
    return x.mean + x.variance.sqrt() * torch.randn(DRAWS, *x.mean.shape[1:], dtype=torch.float64)


def assert_moments_of(rule_moments, y, bias=0.0, spread=0.0):
    """Within five standard errors of mean and variance of ``y``, ``(draws, ...)``.

    The variance of a sample variance is (m4 - v^2) / n, with m4 the fourth central moment. ``bias`` and
    ``spread`` are what mean and variance of an approximation are allowed beside that.
    """
    mean, variance = y.mean(0), y.var(0)
    fourth = (y - mean).pow(4).mean(0)
    errors = (variance / len(y)).sqrt(), ((fourth - variance.square()) / len(y)).sqrt()
    assert ((rule_moments.mean[0] - mean).abs() <= 5 * errors[0] + bias + 1e-12).all()
    assert ((rule_moments.variance[0] - variance).abs() <= 5 * errors[1] + spread + 1e-12).all()


SMOOTH = [
    *(nn.ReLU(), nn.LeakyReLU(0.2), nn.Softplus(), nn.Sigmoid(), nn.Tanh(), nn.ELU(), nn.SELU(), nn.GELU()),
    *(nn.GELU(approximate="tanh"), nn.SiLU(), nn.Mish(), nn.ReLU(inplace=True), nn.SiLU(inplace=True)),
]


@pytest.mark.parametrize("layer", SMOOTH, ids=repr)
def test_activations(layer):
    x = inputs(1, 12)
    before = x.mean.clone()
    assert_moments_of(_rule("act", layer)(x), layer(samples(x)))
    assert torch.equal(x.mean, before)


@pytest.mark.parametrize("layer", [nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(), nn.ReLU6()], ids=repr)
def test_activations_with_kinks(layer):
    # 20 nodes: a kink of slope 1 was seen to be off by up to .014 standard deviations of the input, .02 variances.
    x = inputs(1, 12)
    x = x._replace(mean=3 * x.mean)
    assert_moments_of(_rule("act", layer)(x), layer(samples(x)), 0.02 * x.variance[0].sqrt(), 0.03 * x.variance[0])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.AvgPool2d(2), (2, 4, 4)),
        (nn.AvgPool2d(3, 2, padding=1), (2, 5, 5)),
        (nn.AvgPool1d(2), (2, 6)),
        (nn.AdaptiveAvgPool2d(1), (2, 4, 3)),
        (nn.AdaptiveAvgPool2d((2, 1)), (2, 4, 3)),
        (nn.Flatten(), (2, 3, 2)),
        (nn.Identity(), (3,)),
        (nn.FeatureAlphaDropout().eval(), (2, 3, 2)),
        (nn.Dropout(0.5), (3,)),
        (nn.Linear(5, 3), (5,)),
        (nn.Conv2d(2, 3, 3, padding=1), (2, 4, 4)),
        (nn.ConvTranspose2d(2, 3, 2, stride=2), (2, 3, 3)),
        (ThresholdedReLU(2), (2, 3)),
    ],
    ids=repr,
)
def test_layers_of_known_weights_and_shapes(layer, shape):
    layer = layer.double().eval()
    if isinstance(layer, ThresholdedReLU):
        nn.init.uniform_(layer.tau, -0.5, 0.5)
    x = inputs(1, *shape)
    with torch.no_grad():
        assert_moments_of(_rule("layer", layer)(x), layer(samples(x)))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(affine):
    layer = nn.BatchNorm2d(2, affine=affine).double()
    layer(2 + 3 * torch.randn(50, 2, 3, 3, dtype=torch.float64))
    x = inputs(1, 2, 3, 3)
    if affine:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    with torch.no_grad():
        assert_moments_of(_rule("norm", layer.eval())(x), layer(samples(x)))


def test_functions_of_one_and_of_two_random_tensors():
    x, y = inputs(1, 2, 3), inputs(1, 2, 3)
    a, b = samples(x), samples(y)
    assert_moments_of(CALLS["mean"](x, (1, 2)), a.mean((1, 2)))
    assert_moments_of(CALLS[torch.add](x, y, alpha=-3), a - 3 * b)
    assert_moments_of(CALLS["sub"](2.0, y), 2 - b)
    assert_moments_of(CALLS["mul"](x, y), a * b)
    assert_moments_of(CALLS["div"](x, 4), a / 4)
    assert_moments_of(CALLS[torch.cat]([x, y], 2), torch.cat([a, b], 2))
    assert_moments_of(CALLS[F.leaky_relu](x, 0.3), F.leaky_relu(a, 0.3))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool1d(2),
        nn.MaxPool2d((1, 2)),
        nn.MaxPool2d(3, 2, padding=1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, 1, dilation=2),
        nn.MaxPool3d(2),
        nn.AdaptiveMaxPool1d(3),
        nn.AdaptiveMaxPool2d((2, 5)),
    ],
    ids=repr,
)
def test_the_largest_of_a_window_is_the_element_of_largest_mean(layer, memory):
    axes = int(type(layer).__name__[-2])
    x = inputs(2, 3, *(5,) * axes)
    # The variance is a function of the mean, so that it says which element was taken.
    x = Moments(x.mean, (2 + x.mean.sin()))
    if axes == 2:
        x = Moments(*(part.contiguous(memory_format=memory) for part in x))
    mean, variance = _rule("pool", layer)(x)
    assert torch.equal(mean, layer(x.mean))
    assert torch.equal(variance, 2 + mean.sin())
    assert mean.stride() == variance.stride()
    separate = Moments(10 * x.mean, 0.01 * x.variance)
    if axes == 2:  # where no two elements are near each other, that is exact
        one = Moments(separate.mean[:1, :1], separate.variance[:1, :1])
        assert_moments_of(_rule("pool", layer)(one), layer(samples(one)), 0.05, 0.02)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.LayerNorm(256), (256,)),
        (nn.RMSNorm(256), (256,)),
        (nn.GroupNorm(2, 8), (8, 8, 8)),
        (nn.InstanceNorm2d(2, affine=True), (2, 16, 16)),
        (FilterResponseNorm(2), (2, 16, 16)),
    ],
    ids=repr,
)
def test_norms_by_statistics_are_near_where_many_elements_share_them(layer, shape):
    # 256 elements: their mean square varies by a tenth of itself; seen were .02 standard deviations and 10 %.
    layer = layer.double()
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    x = inputs(1, *shape)
    with torch.no_grad():
        y = layer(samples(x)[:50_000])
        assert_moments_of(_rule("norm", layer)(x), y, 0.04 * y.std(0), 0.15 * y.var(0))


LINEAR = [
    BBB(**WIDE),
    BBB(posterior=LowRank, **WIDE),
    BBB(posterior=Radial, **WIDE),
    GaussianW(0.3),
    MCDropout(0.3),
    MCDropout(0.3, shared=True),
    GaussianS(0.3),
    VariationalA(),
    VariationalB(),
    VariationalB(noise_on="outputs"),
    HierarchicalA(),
    Sparse(sigma_init=0.3),
    Rank1(scale_init=0.3),
]


def outputs(layer, x):
    """The layer's outputs for inputs ``(draws, ...)``, with noise of its own for each."""
    if layer.examples_are_independent:
        return layer(x)
    return torch.cat([vmap(lambda row: layer(row[None])[0], randomness="different")(part) for part in x.split(50_000)])


@pytest.mark.parametrize("known", [True, False], ids=["inputs known", "inputs random"])
@pytest.mark.parametrize("method", LINEAR, ids=repr)
def test_linear_layers_under_every_method(method, known):
    layer = bayesianize(nn.Linear(4, 3).double(), method)
    x = inputs(1, 4)
    noisy = x.mean.expand(DRAWS, 4) if known else samples(x)
    with torch.no_grad():
        result = rule_of_random_layer(layer, "fc")(x.mean if known else x)
        y = outputs(layer, noisy)
    assert_moments_of(result, y)


@pytest.mark.parametrize("known", [True, False], ids=["inputs known", "inputs random"])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(2, 4, 3, groups=2),
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.Conv3d(1, 2, 2),
        nn.ConvTranspose2d(2, 3, 2, stride=2, bias=False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", [BBB(**WIDE), MCDropout(0.3)], ids=repr)
def test_convolutions(layer, method, known):
    layer = bayesianize(layer.double(), method)
    x = inputs(1, 1 if layer.kind == "Conv3d" else 2, *(4,) * (int(layer.kind[-2]) if layer.kind[-1] == "d" else 2))
    with torch.no_grad():
        result = rule_of_random_layer(layer, "conv")(x.mean if known else x)
        noisy = x.mean.expand(DRAWS // 4, *x.mean.shape[1:]) if known else samples(x)[: DRAWS // 4]
        y = outputs(layer, noisy)
    assert_moments_of(result, y)
