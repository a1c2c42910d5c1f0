"""Activations that a network changes in place, and products of activations with functions of themselves."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn_lightning import BBB, MomentNetwork, MomentsError, bayesianize


class Net(nn.Module):
    """A network that does between two layers what it is told."""

    def __init__(self, between):
        super().__init__()
        self.first, self.side, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.relu, self.sigmoid = nn.ReLU(inplace=True), nn.Sigmoid()
        self.between = between

    def forward(self, x):
        return self.last(self.between(self, self.first(x)))


def module(net, h):
    net.relu(h)
    return h


def method(net, h):
    h.relu_()
    return h


def function(net, h):
    F.relu(h, inplace=True)
    return h


def function_by_position(net, h):
    F.relu(h, True)
    return h


def used_before_and_after(net, h):
    y = net.side(h)
    net.relu(h)
    return h + y


def added(net, h):
    h.add_(net.side(h))
    return h


def augmented(net, h):
    same = h
    same += 1
    same *= net.side(h).sigmoid()
    return h


def size_changed(net, h):
    size = h.shape[1]
    total = size
    total *= 10
    return h / size * total


def input_changed(net, h):
    h += net.side(h)
    return h


@pytest.mark.parametrize(
    "between",
    [
        module,
        method,
        function,
        function_by_position,
        used_before_and_after,
        added,
        augmented,
        size_changed,
        input_changed,
    ],
)
def test_what_uses_a_changed_activation_later_gets_the_change(between):
    torch.manual_seed(0)
    net = Net(between).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    mean, variance = MomentNetwork(bayesianize(net, BBB(rho_init=(-40.0, 0.0))))(x)  # sigma is 4e-18
    torch.testing.assert_close(mean, net(x), rtol=1e-9, atol=1e-9)
    assert variance.max() < 1e-20


def test_an_input_that_a_network_changes_in_place_is_left_alone():
    class Centred(Net):
        def forward(self, x):
            x -= 0.5
            return super().forward(x)

    net = Centred(method)
    x = torch.randn(5, 3)
    before = x.clone()
    mean, _ = MomentNetwork(bayesianize(net, BBB(rho_init=(-20.0, 0.0))))(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(mean, net(x.clone()), rtol=1e-5, atol=1e-5)


def a_part(net, h):
    first, _ = h.chunk(2, 1)
    first.relu_()
    return h


def a_view(net, h):
    pairs = h.view(-1, 2, 2)
    pairs *= 2
    return h


def an_item(net, h):
    h[:, :3].mul_(3)
    return h


def another_name(net, h):
    shortcut = net.identity(h)
    return F.relu(h, inplace=True) + shortcut


@pytest.mark.parametrize("between", [a_part, a_view, an_item, another_name])
def test_changes_that_another_name_sees_are_refused(between):
    net = Net(between)
    net.identity = nn.Identity()
    with pytest.raises(MomentsError, match="changes activations in place and uses them by another name"):
        MomentNetwork(bayesianize(net, BBB()))


def test_a_changed_activation_has_the_moments_of_one_that_is_computed_anew():
    torch.manual_seed(0)
    net = bayesianize(Net(module), BBB(rho_init=(-1.0, 0.1)))
    x = torch.randn(5, 3)
    changed = MomentNetwork(net).covariance(x)
    net.between = lambda net, h: h.relu()
    for found, expected in zip(changed, MomentNetwork(net).covariance(x), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "between",
    [
        lambda net, h: h * h,
        lambda net, h: h * net.sigmoid(h),
        lambda net, h: h.mul_(torch.sigmoid(1.7 * h)),
        lambda net, h: 0.5 * h * (1 + torch.tanh(0.8 * h)),
        lambda net, h: h.flatten(1) * torch.sigmoid(h.clone()).flatten(1),
    ],
    ids=["square", "swish", "fast gelu", "gelu", "flattened"],
)
def test_products_with_functions_of_themselves_are_refused(between):
    # As independent factors E[h h] would be the square of the mean: too low by the variance.
    with pytest.raises(MomentsError, match="multiplies activations by a function of themselves"):
        MomentNetwork(bayesianize(Net(between), BBB()))


def test_gates_of_other_activations_are_products():
    for between in (
        lambda net, h: h * net.side(h).sigmoid(),
        lambda net, h: torch.cat([h, h], 1).chunk(2, 1)[0] * torch.sigmoid(torch.cat([h, -h], 1).chunk(2, 1)[1]),
        lambda net, h: (h * 2).mul(0.5),
    ):
        torch.manual_seed(0)
        net = Net(between)
        x = torch.randn(5, 3)
        mean, _ = MomentNetwork(bayesianize(net, BBB(rho_init=(-20.0, 0.0))))(x)
        torch.testing.assert_close(mean, net(x), rtol=1e-5, atol=1e-5)
