import pytest
import torch
from torch import nn

from bnn_lightning import (
    BBB,
    MLP,
    AlexNet,
    BayesianLayer,
    CIFARNet,
    HierarchicalB,
    LeNet,
    LeNet5Caffe,
    LeNet300100,
    Sparse,
    ThreeConvThreeFC,
    VariationalA,
    bayesianize,
    kl,
    methods,
)
from bnn_lightning.methods import Method
from bnn_lightning.networks import Network
from bnn_lightning.parser import names_of

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
    (LeNet5Caffe, {}, 430_500, 580),
    (LeNet300100, {}, 266_200, 410),
    (CIFARNet, {}, 438_368, 362),
    (CIFARNet, {"scale": 1.5}, 984_720, 538),
    (CIFARNet, {"scale": 2.0}, 1_749_184, 714),
]

SHAPES = {
    LeNet: {"conv1": (6, 28, 28), "pool1": (6, 14, 14), "conv2": (16, 10, 10), "pool2": (16, 5, 5), "flatten": (400,)},
    AlexNet: {"conv1": (64, 8, 8), "pool1": (64, 4, 4), "conv2": (192, 4, 4), "pool2": (192, 2, 2)}
    | {"conv3": (384, 2, 2), "conv4": (256, 2, 2), "conv5": (128, 2, 2), "pool5": (128, 1, 1), "flatten": (128,)},
    ThreeConvThreeFC: {"conv1": (32, 32, 32), "pool1": (32, 15, 15), "conv2": (64, 15, 15), "pool2": (64, 7, 7)}
    | {"conv3": (128, 5, 5), "pool3": (128, 2, 2), "flatten": (512,), "fc1": (1000,), "fc2": (1000,)},
    MLP: {"flatten": (1024,), "fc1": (1200,), "fc2": (1200,)},
    LeNet5Caffe: {"conv1": (20, 24, 24), "pool1": (20, 12, 12), "conv2": (50, 8, 8), "pool2": (50, 4, 4)}
    | {"flatten": (800,), "fc1": (500,)},
    LeNet300100: {"flatten": (784,), "fc1": (300,), "fc2": (100,)},
    CIFARNet: {"conv1": (32, 15, 15), "conv2": (64, 7, 7), "flatten": (3136,), "fc1": (128,), "fc2": (128,)},
}


@pytest.mark.parametrize(("network", "settings", "weights", "biases"), COUNTS)
def test_parameter_counts(network, settings, weights, biases):
    net = network(**settings)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == weights + biases
    bayesian = bayesianize(net, BBB())
    assert sum(parameter.numel() for parameter in bayesian.parameters()) == 2 * (weights + biases)
    size = getattr(net, "image_size", 32)
    # Per-weight variational dropout doubles the weights alone; biases carry no noise.
    for method in (Sparse(), HierarchicalB()):
        made = bayesianize(net, method)
        assert sum(parameter.numel() for parameter in made.parameters()) == 2 * weights + biases
    x = torch.randn(2, settings.get("in_channels", 3 if network is CIFARNet else 1), size, size)
    assert net(x).shape == (2, settings.get("num_classes", 10))


@pytest.mark.parametrize("network", SHAPES)
def test_shapes_inside(network):
    net, seen = network(), {}
    for name, module in net.named_children():
        module.register_forward_hook(lambda _, args, y, name=name: seen.update({name: tuple(y.shape[1:])}))
    net(torch.randn(1, 3 if network is CIFARNet else 1, net.image_size, net.image_size))
    assert {name: seen[name] for name in SHAPES[network]} == SHAPES[network]


@pytest.mark.parametrize("network", SHAPES)
def test_activations_after_every_layer_but_the_last(network):
    net = network(activation="softplus")
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net)
    linear_chain = 2 if network is CIFARNet else 0  # the study has no activation between its linear layers
    assert sum(isinstance(module, nn.Softplus) for module in net) == layers - 1 - linear_chain
    assert isinstance(list(net)[-1], nn.Linear)
    # Pooling before the activation is the same function as after it.
    first, second = net.conv1 if hasattr(net, "conv1") else None, nn.MaxPool2d(2)
    if first is not None:
        hidden = first(torch.randn(2, first.in_channels, 32, 32))
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


@pytest.mark.parametrize("method", names_of(Method))
@pytest.mark.parametrize("network", SHAPES)
def test_one_training_step_of_every_network_and_method(network, method):
    net = bayesianize(network(), getattr(methods, method)())
    optimizer = torch.optim.Adam(net.parameters())
    x = torch.randn(4, 3 if network is CIFARNet else 1, net.image_size, net.image_size)
    loss = nn.functional.cross_entropy(net(x), torch.arange(4)) + kl(net) / 1000
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


def test_a_scale_too_small_is_refused():
    with pytest.raises(
        ValueError, match=r"^scale must be a factor of the width such as 1\.5, at least 1/32, got 0\.01\.$"
    ):
        CIFARNet(scale=0.01)


@pytest.mark.parametrize(("alpha", "count"), [("feature", 3136), ("channel", 64)])
def test_both_placements_between_convolution_and_linear_layer(alpha, count):
    # T4.8
    net = bayesianize(CIFARNet(), VariationalA(alpha=alpha))
    assert net.fc1.weight.alpha.log_alpha.numel() == count
    assert net.fc2.weight.alpha.log_alpha.numel() == 128
    assert net.conv2.weight.alpha.log_alpha.numel() == 32
