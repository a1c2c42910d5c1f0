import pytest
import torch
from torch import nn

from bnn_lightning import BBB, LRT, MLP, AlexNet, BayesianLayer, LeNet, ThreeConvThreeFC, bayesianize, kl
from bnn_lightning.networks import Network

# Weights, biases (T5.1); Bayesian networks have two numbers for each.
COUNTS = [
    (LeNet, {}, 61_470, 236),
    (LeNet, {"in_channels": 3}, 61_770, 236),
    (AlexNet, {}, 2_159_424, 1_034),
    (AlexNet, {"in_channels": 3}, 2_174_912, 1_034),
    (AlexNet, {"in_channels": 3, "num_classes": 100}, 2_186_432, 1_124),
    (ThreeConvThreeFC, {}, 1_778_800, 2_234),
    (ThreeConvThreeFC, {"in_channels": 3}, 1_780_400, 2_234),
    (MLP, {}, 2_680_800, 2_410),
    (MLP, {"image_size": 28}, 2_392_800, 2_410),
]

SHAPES = {
    LeNet: {"conv1": (6, 28, 28), "pool1": (6, 14, 14), "conv2": (16, 10, 10), "pool2": (16, 5, 5), "flatten": (400,)},
    AlexNet: {"conv1": (64, 8, 8), "pool1": (64, 4, 4), "conv2": (192, 4, 4), "pool2": (192, 2, 2)}
    | {"conv3": (384, 2, 2), "conv4": (256, 2, 2), "conv5": (128, 2, 2), "pool5": (128, 1, 1), "flatten": (128,)},
    ThreeConvThreeFC: {"conv1": (32, 32, 32), "pool1": (32, 15, 15), "conv2": (64, 15, 15), "pool2": (64, 7, 7)}
    | {"conv3": (128, 5, 5), "pool3": (128, 2, 2), "flatten": (512,), "fc1": (1000,), "fc2": (1000,)},
    MLP: {"flatten": (1024,), "fc1": (1200,), "fc2": (1200,)},
}


@pytest.mark.parametrize(("network", "settings", "weights", "biases"), COUNTS)
def test_parameter_counts(network, settings, weights, biases):
    net = network(**settings)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == weights + biases
    bayesian = bayesianize(net, BBB())
    assert sum(parameter.numel() for parameter in bayesian.parameters()) == 2 * (weights + biases)
    size = getattr(net, "image_size", 32)
    x = torch.randn(2, settings.get("in_channels", 1), size, size)
    assert net(x).shape == (2, settings.get("num_classes", 10))


@pytest.mark.parametrize("network", SHAPES)
def test_shapes_inside(network):
    net, seen = network(), {}
    for name, module in net.named_children():
        module.register_forward_hook(lambda _, args, y, name=name: seen.update({name: tuple(y.shape[1:])}))
    net(torch.randn(1, 1, 32, 32))
    assert {name: seen[name] for name in SHAPES[network]} == SHAPES[network]


@pytest.mark.parametrize("network", SHAPES)
def test_activations_after_every_layer_but_the_last(network):
    net = network(activation="softplus")
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net)
    assert sum(isinstance(module, nn.Softplus) for module in net) == layers - 1
    assert isinstance(list(net)[-1], nn.Linear)
    # Pooling before the activation is the same function as after it.
    first, second = net.conv1 if hasattr(net, "conv1") else None, nn.MaxPool2d(2)
    if first is not None:
        hidden = first(torch.randn(2, 1, 32, 32))
        assert torch.equal(nn.functional.softplus(second(hidden)), second(nn.functional.softplus(hidden)))


def test_softplus_weights_are_he_normal():
    weight = ThreeConvThreeFC(activation="softplus").fc2.weight
    assert weight.std().item() == pytest.approx((2 / 1000) ** 0.5, rel=5 / (2 * 1e6) ** 0.5)


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"^activation must be one of relu, softplus, got 'tanh'\.$"):
        LeNet(activation="tanh")


# T2.2: KL of the untouched network, prior N(0, .1^2), means from N(0, .1^2).
START_KL = [
    (LeNet, 166_777, 51_944),
    (AlexNet, 5.839e6, 1.819e6),
    (ThreeConvThreeFC, 4.814e6, 1.499e6),
    (MLP, 7.252e6, 2.259e6),
]


@pytest.mark.parametrize(("network", "at_minus_5", "at_minus_3"), START_KL)
def test_start_kl_with_the_references_initial_means(network, at_minus_5, at_minus_3):
    for rho, expected in ((-5.0, at_minus_5), (-3.0, at_minus_3)):
        net = bayesianize(network(), BBB(mu_init=(0.0, 0.1), rho_init=(rho, 0.1)))
        assert kl(net).item() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("method", [BBB(), LRT()])
@pytest.mark.parametrize("network", SHAPES)
def test_one_training_step_of_every_network_and_method(network, method):
    net = bayesianize(network(), method)
    optimizer = torch.optim.Adam(net.parameters())
    loss = nn.functional.cross_entropy(net(torch.randn(4, 1, 32, 32)), torch.arange(4)) + kl(net) / 1000
    loss.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    before = [parameter.clone() for parameter in net.parameters()]
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


def test_any_module_counts_as_a_network_but_not_as_one_of_ours():
    assert issubclass(nn.Linear, Network)
    assert isinstance(nn.Linear(1, 1), Network)
    assert not issubclass(nn.Linear, LeNet)
    assert not isinstance(BayesianLayer(nn.Linear(1, 1), BBB()), MLP)
    assert not issubclass(int, Network)
