import pytest
import torch
from torch import nn

from bnn_lightning import (
    BBB,
    MLP,
    AlexNet,
    BaseCNN,
    BatchBALDNet,
    BatchNormMLP,
    BayesianLayer,
    CIFARNet,
    HierarchicalB,
    LeNet,
    LeNet5Caffe,
    LeNet300100,
    SKNet,
    Sparse,
    ThreeConvThreeFC,
    VariationalA,
    bayesianize,
    kl,
    multiply_adds,
)
from bnn_lightning.cli.parser import names_of
from bnn_lightning.core import methods
from bnn_lightning.core.methods import Method
from bnn_lightning.networks import Network

# Weights; biases, with batch norm's scales and shifts. A network whose widths differ from the published one is another
# network, whatever its name. Bayesian networks have two numbers for each of these.
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
    (BaseCNN, {}, 430_500, 580),
    (BaseCNN, {"batch_norm": True}, 430_500, 580, 1_140),
    (BaseCNN, {"batch_norm": True, "dropout": "logits"}, 430_500, 580, 1_140),
    (SKNet, {"scale": 0.2}, 130_540, 528, 1_036),
    (SKNet, {"scale": 0.5}, 320_740, 555, 1_090),
    (SKNet, {}, 642_780, 600, 1_180),
    (SKNet, {"scale": 1.5}, 971_120, 645, 1_270),
    (SKNet, {"scale": 2.0}, 1_305_760, 690, 1_360),
    (BatchBALDNet, {}, 184_352, 234),
    (BatchNormMLP, {}, 89_400, 210, 400),
    (BatchNormMLP, {"batch_norm": "none"}, 89_400, 210),
    (BatchNormMLP, {"batch_norm": "shared"}, 89_400, 210, 200),
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
    BaseCNN: {"conv1": (20, 24, 24), "pool1": (20, 12, 12), "conv2": (50, 8, 8), "pool2": (50, 4, 4), "fc1": (500,)},
    SKNet: {"conv1": (20, 26, 26), "conv2": (20, 24, 24), "pool2": (20, 12, 12), "conv3": (50, 10, 10)}
    | {"pool3": (50, 5, 5), "flatten": (1250,), "fc1": (500,)},
    BatchBALDNet: {"conv1": (32, 24, 24), "pool1": (32, 12, 12), "conv2": (64, 8, 8), "pool2": (64, 4, 4)}
    | {"fc1": (128, 1, 1), "flatten": (128,)},
    BatchNormMLP: {"flatten": (784,), "fc1": (100,), "bn1": (100,), "fc2": (100,)},
}

# Layers without an activation after them, beside the last: as their studies have it.
BARE = {CIFARNet: ("fc1", "fc2"), BaseCNN: ("conv1", "conv2"), SKNet: ("conv3",)}


@pytest.mark.parametrize(("network", "settings", "weights", "biases", "norms"), [(*row, 0)[:5] for row in COUNTS])
def test_parameters_are_as_many_as_counted_by_hand(network, settings, weights, biases, norms):
    net = network(**settings)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == weights + biases + norms
    bayesian = bayesianize(net, BBB())
    assert sum(parameter.numel() for parameter in bayesian.parameters()) == 2 * (weights + biases) + norms
    size = getattr(net, "image_size", 32)
    # Per-weight variational dropout doubles the weights alone; biases carry no noise.
    for method in (Sparse(), HierarchicalB()):
        sparse = bayesianize(net, method)
        assert sum(parameter.numel() for parameter in sparse.parameters()) == 2 * weights + biases + norms
    x = torch.randn(2, settings.get("in_channels", 3 if network is CIFARNet else 1), size, size)
    assert net(x).shape == (2, settings.get("num_classes", 10))


@pytest.mark.parametrize("network", SHAPES)
def test_the_maps_inside_have_the_published_shapes(network):
    net, seen = network(), {}
    for name, module in net.named_children():
        module.register_forward_hook(lambda _, args, y, name=name: seen.update({name: tuple(y.shape[1:])}))
    net(torch.randn(2, 3 if network is CIFARNet else 1, net.image_size, net.image_size))
    assert {name: seen[name] for name in SHAPES[network]} == SHAPES[network]


@pytest.mark.parametrize("network", SHAPES)
def test_activations_after_every_layer_but_the_last(network):
    net = network(activation="softplus")
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net)
    assert sum(isinstance(module, nn.Softplus) for module in net) == layers - 1 - len(BARE.get(network, ()))
    followed = {}
    for name, module in net.named_children():
        if isinstance(module, nn.Conv2d | nn.Linear):
            followed[last := name] = False
        elif isinstance(module, nn.Softplus):
            followed[last] = True
    assert [name for name, is_followed in followed.items() if not is_followed] == [*BARE.get(network, ()), last]
    assert isinstance(list(net)[-1], nn.Linear)
    # Pooling before the activation is the same function as after it.
    first, second = net.conv1 if hasattr(net, "conv1") else None, nn.MaxPool2d(2)
    if first is not None:
        hidden = first(torch.randn(2, first.in_channels, 32, 32))
        before, after = nn.functional.softplus(second(hidden)), second(nn.functional.softplus(hidden))
        # torch's softplus rounds the last numbers of a row, which do not fill a vector, otherwise than the others.
        torch.testing.assert_close(before, after, rtol=2**-22, atol=0)


def test_softplus_weights_are_he_normal():
    weight = ThreeConvThreeFC(activation="softplus").fc2.weight
    assert weight.std().item() == pytest.approx((2 / 1000) ** 0.5, rel=5 / (2 * 1e6) ** 0.5)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"^activation must be one of relu, softplus, sigmoid, got 'tanh'\.$"):
        LeNet(activation="tanh")


# KL of the untouched network, at rho -5 and at rho -3: prior N(0, .1^2), means from N(0, .1^2). A KL in the wrong
# direction, or one that leaves parameters out, starts elsewhere.
START_KL = [
    (LeNet, 166_777, 51_944),
    (AlexNet, 5.839e6, 1.819e6),
    (ThreeConvThreeFC, 4.814e6, 1.499e6),
    (MLP, 7.252e6, 2.259e6),
]


@pytest.mark.parametrize(("network", "at_minus_5", "at_minus_3"), START_KL)
def test_an_untouched_network_starts_at_the_kl_of_its_initial_means(network, at_minus_5, at_minus_3):
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
def test_an_alpha_is_of_a_feature_or_of_a_channel_behind_convolutions(alpha, count):
    # The noise enters behind the flattening, with an alpha for each feature, or before it, with one for each channel.
    net = bayesianize(CIFARNet(), VariationalA(alpha=alpha))
    assert net.fc1.weight.alpha.log_alpha.numel() == count
    assert net.fc2.weight.alpha.log_alpha.numel() == 128
    assert net.conv2.weight.alpha.log_alpha.numel() == 32


def test_dropout_and_batch_norm_stand_where_the_study_has_them():
    names = [name for name, _ in BaseCNN(batch_norm=True, dropout="logits").named_children()]
    assert " ".join(names) == "conv1 bn1 pool1 conv2 bn2 pool2 flatten fc1 bn3 act3 fc2 dropout_logits"
    names = [name for name, _ in BaseCNN(dropout="hidden").named_children()]
    assert names[-4:] == ["fc1", "act3", "dropout_hidden", "fc2"]


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        (BaseCNN, {"dropout": "all"}, r"^dropout must be none, hidden or logits, got 'all'\.$"),
        (SKNet, {"scale": 0.01}, r"^scale must be a factor of the width such as 0\.5, at least 1/20, got 0\.01\.$"),
        (MLP, {"hidden": 0}, r"^hidden must be 1 unit or more, got 0\.$"),
        (BatchNormMLP, {"batch_norm": True}, r"^batch_norm must be none, separate or shared, got True\.$"),
    ],
)
def test_settings_of_the_studies_networks_are_checked(network, settings, message):
    with pytest.raises(ValueError, match=message):
        network(**settings)


def test_batchnormmlp_is_he_normal_and_shares_one_module_only_where_asked():
    net = BatchNormMLP()
    assert net.fc1.weight.std().item() == pytest.approx((2 / 784) ** 0.5, rel=5 / (2 * 78_400) ** 0.5)
    assert net.bn1 is not net.bn2
    assert (net.bn1.eps, net.bn1.momentum) == (1e-3, 0.1)
    shared = BatchNormMLP(batch_norm="shared")
    assert shared.bn1 is shared.bn2
    assert bayesianize(shared, BBB()).bn1 is not shared.bn1  # a copy, which shares its own
    copy = bayesianize(shared, BBB())
    assert copy.bn1 is copy.bn2


@pytest.mark.parametrize(("scale", "widths"), [(0.58, (11, 29)), (1.14, (22, 57)), (0.3, (6, 15)), (0.49, (9, 24))])
def test_widths_of_sk_are_products_that_decimals_give(scale, widths):
    net = SKNet(scale=scale)
    assert (net.conv1.out_channels, net.conv3.out_channels) == widths


def test_multiply_adds_are_those_counted_by_hand():
    # conv1 24 x 24 x 20 x 25, conv2 8 x 8 x 50 x 20 x 25, fc1 800 x 500, fc2 500 x 10
    base = 24 * 24 * 20 * 25 + 8 * 8 * 50 * 20 * 25 + 800 * 500 + 500 * 10
    assert multiply_adds(BaseCNN(), (1, 28, 28)) == base
    net = SKNet().train()
    conv = 26 * 26 * 20 * 9 + 24 * 24 * 20 * 20 * 9 + 10 * 10 * 50 * 20 * 9
    mean = net.bn1.running_mean.clone()
    assert multiply_adds(net, (1, 28, 28)) == conv + 1250 * 500 + 500 * 10
    assert net.training
    assert torch.equal(net.bn1.running_mean, mean)  # nothing was learnt from the image of zeros
