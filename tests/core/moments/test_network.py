"""MomentNetwork: exact where everything is linear, the plain network without noise, graphs, exports and refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn_lightning import (
    BBB,
    LRT,
    LeNet,
    MCDropout,
    MomentNetwork,
    Moments,
    MomentsError,
    Rank1,
    ResNet20,
    ViTTiny,
    bayesianize,
    moment_rule,
    to_plain,
)
from bnn_lightning.core.kernels.compiling import compiling
from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.core.moments.rules import rule_of
from bnn_lightning.core.moments.weights import KnownWeights, RandomWeights

WIDE = {"rho_init": (-1.0, 0.1)}


def test_a_linear_network_is_exact():
    # E2. Of x -> W2 (W1 x + b1) + b2 with independent weights: E = M2 (M1 x + c1) + c2, and for h = W1 x + b1 with mean
    # m and covariance diag(v): Var y_k = sum_i [S2_ki (m_i^2 + v_i) + M2_ki^2 v_i] + s2_k.
    net = bayesianize(nn.Sequential(nn.Linear(4, 5), nn.Identity(), nn.Linear(5, 3)).double(), BBB(**WIDE))
    x = torch.randn(6, 4, dtype=torch.float64)
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in (net[0], net[2]))
    with torch.no_grad():
        m, v = x @ w1.mean.T + b1.mean, x.square() @ w1.variance.T + b1.variance
        expected = m @ w2.mean.T + b2.mean
        variance = (m.square() + v) @ w2.variance.T + v @ w2.mean.square().T + b2.variance
        for found, wanted in zip(MomentNetwork(net)(x), (expected, variance), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


class Graph(nn.Module):
    """Sums, products, concatenation, shapes and functions."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.side = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(2, 4, 1)
        self.fc = nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.rand(4))

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x))) + self.side(x)
        y = y * self.scale.view(-1, 1, 1) - 0.5
        first, second = y.chunk(2, 1)
        y = torch.cat([first, -second, x], 1)
        y = nn.functional.max_pool2d(y, 2).mean((2, 3))
        z = torch.sigmoid(y).view(x.size(0), -1).reshape(x.size(0), 1, -1).permute(0, 2, 1).flatten(1) / 2
        return self.fc(torch.cat([z, z[:, :2]], dim=1))


def trained(net, *shape):
    for _ in range(2):
        net(torch.randn(16, *shape))  # gives batch norms statistics of their own
    return net.eval()


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (LeNet(), (1, 32, 32)),
        (ResNet20(1), (1, 32, 32)),
        (ResNet20(1, norm="group"), (1, 32, 32)),
        (ResNet20(1, norm="frn"), (1, 32, 32)),
        (Graph(), (2, 4, 4)),
    ],
    ids=["LeNet", "batch norm", "group norm", "frn", "graph"],
)
def test_without_noise_it_is_the_plain_network(net, shape):
    # E3: weights with a variance of 1e-26.
    net, x = trained(net, *shape).double(), torch.randn(3, *shape, dtype=torch.float64)
    mean, variance = MomentNetwork(bayesianize(net, LRT(rho_init=(-30.0, 0.0))))(x)
    with torch.no_grad():
        torch.testing.assert_close(mean, net(x), rtol=1e-8, atol=1e-8)
    assert variance.max() < 1e-15


def test_noise_in_some_layers_alone():
    net = trained(Graph(), 2, 4, 4)
    _, variance = MomentNetwork(bayesianize(net, BBB(**WIDE), only="fc"))(torch.randn(3, 2, 4, 4))
    assert (variance > 0).all()
    mean, variance = MomentNetwork(net)(x := torch.randn(3, 2, 4, 4))
    assert torch.equal(mean, net(x))
    assert not variance.any()


def test_batch_norm_becomes_part_of_a_convolution():
    net = bayesianize(trained(ResNet20(1), 1, 32, 32), LRT())
    kinds = [type(module).__name__ for module in MomentNetwork(net).modules()]
    assert kinds.count("RandomWeights") == 22
    assert "ChannelAffine" not in kinds
    chain = bayesianize(trained(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), 1, 4, 4).double(), BBB(**WIDE))
    nn.init.normal_(chain[1].weight)
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        apart = rule_of(chain[1])(Moments(*MomentNetwork(chain[0])(x)))
    for found, expected in zip(MomentNetwork(chain)(x), apart, strict=True):
        torch.testing.assert_close(found, expected)
    # That of a linear layer stands apart: behind (batch, steps, features) its channels are the steps.
    net = bayesianize(trained(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), 3), LRT())
    assert "ChannelAffine" in [type(module).__name__ for module in MomentNetwork(net).modules()]


def test_mean_and_variance_are_those_of_local_draws():
    net = trained(Graph(), 2, 4, 4).double()
    net = bayesianize(net, LRT(rho_init=(-2.0, 0.1)))
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        y = net(x.repeat(100_000, 1, 1, 1)).view(100_000, 2, 3)
    mean, variance = MomentNetwork(net)(x)
    # Two paths from one convolution, and maxima in pairs of pairs, are where it is not exact.
    assert ((mean - y.mean(0)).abs() < 0.05 * y.std(0)).all()
    assert ((variance / y.var(0)).log().abs() < 0.1).all()


def test_it_does_not_see_later_changes_and_changes_nothing():
    net = bayesianize(nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2)), LRT()).train()
    moments, x = MomentNetwork(net), torch.randn(5, 3)
    before = moments(x)
    assert net.training
    assert net[1].training
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(before, moments(x), strict=True))


def test_it_can_be_exported():
    net = bayesianize(trained(Graph(), 2, 4, 4), LRT(**WIDE))
    x = channels_last(torch.randn(6, 2, 4, 4))
    program = torch.export.export(MomentNetwork(net), (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for found, expected in zip(program.module()(x), MomentNetwork(net)(x), strict=True):
        torch.testing.assert_close(found, expected)


def test_blocks_and_compiled_loops_give_the_same(monkeypatch):
    net = MomentNetwork(bayesianize(LeNet(), LRT(**WIDE)))
    x = channels_last(torch.randn(3, 1, 32, 32))
    expected = net(x)
    monkeypatch.setattr("bnn_lightning.core.kernels.rectified._BLOCK", 100)
    blocks = net(x)
    with compiling(True):
        compiled = net(x)
    for part in range(2):
        torch.testing.assert_close(blocks[part], expected[part])
        torch.testing.assert_close(compiled[part], expected[part], rtol=1e-4, atol=1e-5)


class Doubled(nn.Module):
    def forward(self, x):
        return x.clone().mul_(2) if x.sum() > 1e9 else 2 * x


def test_a_module_of_ones_own_brings_its_rule():
    net = bayesianize(nn.Sequential(nn.Linear(3, 4), Doubled()), LRT(**WIDE))
    with pytest.raises(MomentsError, match=r"^draws must be .* that torch.fx cannot trace \(symbolically traced var"):
        MomentNetwork(net)

    @moment_rule(Doubled)
    def double(layer):
        return lambda x: Moments(2 * x.mean, 4 * x.variance)

    x = torch.randn(2, 3)
    mean, variance = MomentNetwork(net)(x)
    once = MomentNetwork(net[0])(x)
    assert torch.equal(mean, 2 * once[0])
    assert torch.equal(variance, 4 * once[1])


def hooked():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    net[0].register_forward_hook(lambda *_: None)
    return net


@pytest.mark.filterwarnings("ignore:these weights are of no layer")  # positions and tokens
@pytest.mark.parametrize(
    ("net", "method", "message"),
    [
        (ViTTiny(depth=1), LRT(), r"a network with blocks.0.attention \(MultiheadAttention\), through which no mean"),
        (nn.LSTM(3, 4), BBB(), r"a network with LSTM, through which"),
        (nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1)), BBB(), r"a network with 1 \(Softmax\), through which"),
        (nn.Conv2d(1, 2, 3), Rank1(), r"a network whose Conv2d has noise that is shared by the pixels"),
        (nn.Conv2d(1, 2, 3), MCDropout(mask="channel"), r"a network whose Conv2d has noise that is shared"),
        (nn.Conv2d(1, 2, 3), MCDropout(shared=True), r"a network whose Conv2d has noise that is shared"),
        (nn.Conv2d(16, 16, 3, groups=16), MCDropout(shared=True), r"a network whose Conv2d has noise that is shared"),
        (nn.ConvTranspose2d(16, 16, 3, groups=8), Rank1(), r"a network whose ConvTranspose2d has noise that is shared"),
        (nn.Linear(3, 2), Rank1(family="cauchy"), r"a network whose Linear has weights without a variance"),
        (hooked(), BBB(), r"a network whose 0 \(Linear\) has hooks"),
        (nn.Sequential(nn.Linear(3, 4), nn.AvgPool1d(2, ceil_mode=True)), BBB(), r"a network whose AvgPool1d has win"),
    ],
)
def test_what_has_no_moments_is_refused_in_a_sentence(net, method, message):
    with pytest.raises(MomentsError, match=rf"^draws must be weights, local or mean for {message}.*, got moments\.$"):
        MomentNetwork(bayesianize(net, method))


class Calls(nn.Module):
    """A network that calls a function between two layers."""

    def __init__(self, function):
        super().__init__()
        self.first, self.function, self.last = nn.Conv2d(1, 2, 3), function, nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return self.last(self.function(self.first(x)))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda h: F.avg_pool2d(h, 2, ceil_mode=True), "avg_pool2d"),
        (lambda h: F.avg_pool2d(h, 2, None, 1, False, False), "avg_pool2d"),
        (lambda h: F.avg_pool2d(h, 2, divisor_override=3), "avg_pool2d"),
        (lambda h: torch.div(h, 2, rounding_mode="floor"), "div"),
        (lambda h: h.div(2, rounding_mode="floor"), "div"),
        (lambda h: h.mean((2, 3), True, dtype=torch.float64), "mean"),
    ],
)
def test_arguments_that_a_rule_does_not_know_are_refused_when_the_network_is_built(function, name):
    with pytest.raises(MomentsError, match=rf"calls {name} as its rule of moments cannot be called \(.*\), got mom"):
        MomentNetwork(bayesianize(Calls(function), BBB()))


def test_sizes_that_pooling_does_not_divide_are_refused():
    net = MomentNetwork(bayesianize(nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(2)), BBB()))
    assert net(torch.randn(1, 1, 4, 6))[0].shape == (1, 2, 2, 2)
    with pytest.raises(MomentsError, match=r"whose AdaptiveAvgPool2d divides \(5, 4\) into windows of different size"):
        net(torch.randn(1, 1, 5, 4))


def test_what_depends_on_weights_alone_is_computed_once():
    net = MomentNetwork(bayesianize(LeNet(), LRT()))
    layers = [module for module in net.modules() if isinstance(module, RandomWeights | KnownWeights)]
    assert len(layers) == 5
    plain = to_plain(bayesianize(LeNet(), LRT()))
    assert sum(layer.weight.mean.numel() for layer in layers) == sum(
        parameter.numel() for name, parameter in plain.named_parameters() if "weight" in name
    )
