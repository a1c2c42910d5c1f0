"""The smaller network: the same outputs, fewer parameters."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

from bnn_lightning import LeNet5Caffe, LeNet300100, ResNet18, ResNet20, ThreeConvThreeFC, WideResNet
from bnn_lightning.compression.shrink import Select, shrink, stays
from bnn_lightning.networks.residual import FilterResponseNorm, ThresholdedReLU
from tests.compression.helpers import thinned


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


NETWORKS = {
    "LeNet300100": (LeNet300100, (3, 1, 28, 28)),
    "LeNet5Caffe": (LeNet5Caffe, (3, 1, 28, 28)),
    "softplus": (lambda: LeNet5Caffe(activation="softplus"), (3, 1, 28, 28)),
    "padded": (ThreeConvThreeFC, (3, 1, 32, 32)),  # constants cannot be folded through zero padding
    "padded_softplus": (lambda: ThreeConvThreeFC(activation="softplus"), (3, 1, 32, 32)),
    "conv1d_average": (
        lambda: nn.Sequential(
            nn.Sequential(nn.Conv1d(2, 8, 3, padding=1, padding_mode="circular"), nn.Tanh(), nn.AvgPool1d(2)),
            nn.Conv1d(8, 8, 3, padding=1, padding_mode="replicate"),
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Linear(64, 3),
        ),
        (3, 2, 16),
    ),
    "no_biases": (
        lambda: nn.Sequential(nn.Linear(9, 9, bias=False), nn.Softplus(), nn.Linear(9, 4, bias=False)),
        (3, 9),
    ),
    "names_that_meet": (
        lambda: nn.Sequential(
            OrderedDict(
                a_b=nn.Linear(9, 9), a=nn.Sequential(OrderedDict(b=nn.Linear(9, 9))), act=nn.ReLU(), out=nn.Linear(9, 2)
            )
        ),
        (3, 9),
    ),
    # Tokens (batch, tokens, features), whose channels are at the last axis.
    "tokens_flattened": (
        lambda: nn.Sequential(
            nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Flatten(), nn.Linear(120, 4)
        ),
        (3, 10, 6),
    ),
    "tokens_pooled": (
        lambda: nn.Sequential(
            nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 16), nn.ReLU(), nn.MaxPool1d(3, 1, 1), nn.Linear(16, 10)
        ),
        (3, 5, 8),
    ),
    "average_pooling_with_zeros": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.Sigmoid(),
            nn.AvgPool2d(3, 2, padding=1),
            nn.Conv2d(8, 8, 3),
            nn.Flatten(),
            nn.Linear(72, 3),
        ),
        (3, 1, 12, 12),
    ),
    "average_pooling_by_another_number": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.Sigmoid(), nn.AvgPool2d(2, divisor_override=1), nn.Flatten(), nn.Linear(72, 3)
        ),
        (3, 1, 8, 8),
    ),
    "groups": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(128, 3)
        ),
        (3, 1, 8, 8),
    ),
    "batch_norm": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(288, 6),
            nn.BatchNorm1d(6),
            nn.Linear(6, 3),
        ),
        (3, 1, 8, 8),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smaller_network_has_the_same_outputs(name):
    make, shape = NETWORKS[name]
    net = thinned(make())
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    small = shrink(net)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(small(x), net(x), rtol=1e-10, atol=1e-10)
    assert parameters(small) < parameters(net)


def test_units_without_readers_and_constant_units_are_removed():
    net = thinned(LeNet300100(), kept=1.0)
    small = shrink(net)
    # A quarter of the units is constant and another has no reader: half are left.
    assert (small.fc1.out_features, small.fc2.in_features, small.fc2.out_features) == (150, 150, 50)
    with torch.no_grad():
        net.fc1.weight[:, 100:] = 0
    small = shrink(net)
    assert isinstance(small.fc1_select, Select)
    assert small.fc1.in_features == 100


def test_a_network_without_any_weight_keeps_its_constant():
    net = thinned(LeNet300100(), kept=0.0)
    small = shrink(net)
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(small(x), net(x))
    assert parameters(small) < 50


def test_the_network_itself_is_left_alone():
    net = thinned(LeNet5Caffe())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    shrink(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


RESIDUAL = {
    "ResNet20": (ResNet20, (2, 3, 16, 16)),
    "ResNet18": (ResNet18, (2, 3, 16, 16)),
    "WideResNet": (lambda: WideResNet(depth=10, width=2), (2, 3, 16, 16)),  # batch norm behind sums
    "FRN": (lambda: ResNet20(norm="frn"), (2, 3, 16, 16)),
    "FRN before convolutions": (lambda: WideResNet(depth=10, width=2, norm="frn"), (2, 3, 16, 16)),
    "torchvision": (resnet18, (2, 3, 64, 64)),  # by torch.flatten, with max pooling
}


def residual(name, kept=0.02):
    make, shape = RESIDUAL[name]
    torch.manual_seed(0)
    net = thinned(make(), kept)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        if isinstance(norm, nn.BatchNorm2d | FilterResponseNorm):
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.normal_()
        if isinstance(norm, ThresholdedReLU):
            norm.tau.data.normal_()
    return net, torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("name", RESIDUAL)
def test_residual_networks_shrink_within_blocks_and_along_the_stream(name):
    net, x = residual(name)
    with torch.no_grad():
        for module in net.modules():
            # No layer reads channels 3 and 7 of the first stage's stream: they go from all summands.
            if isinstance(module, nn.Conv2d) and module.in_channels == net.conv1.out_channels:
                module.weight[:, [3, 7]] = 0
        small = shrink(net)
        expected = net(x)
        torch.testing.assert_close(small(x), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(small.float()(x.float()), net.float()(x.float()), rtol=1e-4, atol=1e-5)
    assert stays(net) == []
    layers = dict(small.named_modules())
    stream, block = layers["conv1"], layers["layer1.0.conv1"]
    assert stream.out_channels <= net.conv1.out_channels - 2
    assert block.out_channels < net.get_submodule("layer1.0.conv1").out_channels
    assert block.in_channels == stream.out_channels
    assert parameters(small) < 0.8 * parameters(net)


def test_a_channel_of_the_stream_stays_while_one_reader_has_a_weight_for_it():
    net, x = residual("ResNet20", kept=1.0)
    readers = [net.get_submodule(f"layer1.{block}.conv1") for block in range(3)]
    readers += [net.layer2[0].conv1, net.layer2[0].downsample[0]]
    with torch.no_grad():
        for reader in readers:
            reader.weight[:, 5] = 0
        without = shrink(net)
        readers[-1].weight[0, 5] = 0.5
        small = shrink(net)
        torch.testing.assert_close(small(x), net(x), rtol=1e-9, atol=1e-9)
    assert small.conv1.out_channels == without.conv1.out_channels + 1


def test_channels_stay_where_something_mixes_them():
    torch.manual_seed(0)
    net, x = thinned(ResNet20(norm="group")), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    net.fc.weight.data.fill_(0.1)  # it reads all of its inputs
    with pytest.raises(ValueError, match=r"^network must have channels that can go .* bn1 \(GroupNorm\)"):
        shrink(net)
    net = nn.Sequential(thinned(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))), nn.GroupNorm(2, 8))
    net = net.append(nn.Conv2d(8, 3, 1)).double().eval()
    small = shrink(net)
    assert stays(net) == ["1 (GroupNorm)"]
    torch.testing.assert_close(small(x), net(x))
    assert small.get_submodule("0_0").out_channels < 8 == small.get_submodule("0_2").out_channels


class Shared(nn.Module):
    """One layer in two places, and channels that are joined."""

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(12, 3)
        self.free, self.end = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.twice(self.twice(self.first(x)).relu())
        return self.end(F.relu(self.free(self.last(torch.cat([x, x.tanh()], 1)))))


def test_what_is_not_known_keeps_its_channels_and_is_named():
    net = thinned(Shared())
    x = torch.randn(5, 4, dtype=torch.float64)
    small = shrink(net)
    torch.testing.assert_close(small(x), net(x))
    assert stays(net) == ["cat", "twice (Linear) is used twice"]
    assert small.free.out_features < 8
    assert small.first.out_features == small.twice.in_features == 6


class InPlace(nn.Module):
    """Two layers that read one activation, the second after something may have changed it."""

    def __init__(self, between):
        super().__init__()
        self.first, self.one, self.two = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 3, 1), nn.Conv2d(6, 3, 1)
        self.relu, self.same, self.between = nn.ReLU(inplace=True), nn.Identity(), between

    def forward(self, x):
        y = self.first(x)
        z = self.between(self, y)
        return self.one(z) + self.two(y)


def added(net, y):
    z = y
    z += y.relu()
    return z


class Scaled(InPlace):
    """Its size is a number: what ``*=`` makes of it is another one."""

    def forward(self, x):
        size = x.shape[2]
        double = size
        double *= 2
        return super().forward(x * (double / size))


@pytest.mark.parametrize(
    "between",
    [
        lambda net, y: net.relu(y),
        lambda net, y: y.relu_(),
        lambda net, y: F.relu(y, True),
        lambda net, y: F.leaky_relu(y, inplace=True),
        added,
    ],
)
@pytest.mark.parametrize("kind", [InPlace, Scaled])
def test_what_uses_a_changed_activation_later_gets_the_change(kind, between):
    torch.manual_seed(0)
    net = thinned(kind(between), kept=1.0)
    with torch.no_grad():
        net.first.bias[:4] = torch.tensor([-1.0, 1.0, -2.0, 2.0])
    x = torch.randn(3, 1, 5, 5, dtype=torch.float64)
    before = x.clone()
    torch.testing.assert_close(shrink(net)(x), net(x), rtol=1e-9, atol=1e-9)
    assert torch.equal(x, before)


@pytest.mark.parametrize("between", [lambda net, y: net.relu(net.same(y)), lambda net, y: y.flatten(1).relu_()[:, :6]])
def test_changes_that_another_name_sees_are_refused(between):
    with pytest.raises(ValueError, match=r"^network must change no activation in place that it uses later by another"):
        shrink(InPlace(between))


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8, track_running_stats=False), nn.Flatten(2), nn.Flatten(0)], ids=str)
def test_layers_of_known_kinds_with_other_meanings_are_refused(layer):
    with pytest.raises(
        ValueError, match=rf"^network must have channels that can go .* got 1 \({type(layer).__name__}\)"
    ):
        shrink(nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 2)))


def test_a_network_that_cannot_shrink_is_refused():
    class Deciding(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(
        ValueError, match=r"^network must be one that torch\.fx can trace to be made smaller, got an err"
    ):
        shrink(Deciding(3, 3))
    with pytest.raises(ValueError, match=r"^network must have channels .* got 1 \(Linear\) reads another axis\.$"):
        shrink(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(4, 2)))
