"""The smaller network: the same outputs, fewer parameters."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from bnn_lightning import LeNet5Caffe, LeNet300100, ThreeConvThreeFC
from bnn_lightning.compression.shrink import Select, shrink
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


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(8, affine=False), nn.BatchNorm1d(8, track_running_stats=False), nn.Flatten(2), nn.Flatten(0)],
    ids=str,
)
def test_layers_of_known_kinds_with_other_meanings_are_refused(layer):
    with pytest.raises(ValueError, match=rf"^network must be a chain .* got {type(layer).__name__} at 1\.$"):
        shrink(nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 2)))


def test_what_is_no_chain_is_refused():
    with pytest.raises(ValueError, match=r"^network must be a chain .* got ResNet at layer\.$"):
        shrink(resnet18())
    with pytest.raises(ValueError, match=r"^network must have a Flatten between Conv1d and 1 to be made smaller\.$"):
        shrink(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"^network must have no Flatten between Linear and 2 to be made smaller\.$"):
        shrink(nn.Sequential(nn.Linear(8, 4), nn.Flatten(), nn.Linear(12, 5)))

    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    with pytest.raises(ValueError, match=r"^network must be a chain .* got Residual at 0\.$"):
        shrink(nn.Sequential(Residual(nn.Linear(3, 3)), nn.Linear(3, 2)))
    layer = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"^network uses 1 in two places; a smaller one is made of chains only\.$"):
        shrink(nn.Sequential(layer, layer))
