import math

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from bnn_lightning import BBB, LRT, BayesianLayer, HierarchicalA, LearntScale, LeNet, Sparse, bayesianize, kl, sampling
from bnn_lightning.core.conversion import load_plain_state_dict, to_plain
from bnn_lightning.core.whole_network import random_tensors, sigma_over_prior

pytestmark = pytest.mark.usefixtures("as_small_and_as_large")


def small():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))


def test_bayesianize_copies_and_keeps_the_weights_as_means():
    # A Bayesian network that starts from a trained one says the same without noise.
    net = small()
    bayesian = bayesianize(net, LRT())
    assert [type(module) for module in net] == [nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear]
    assert [type(module) for module in bayesian] == [BayesianLayer, nn.ReLU, nn.Flatten, BayesianLayer]
    x = torch.randn(3, 1, 4, 4)
    with sampling(bayesian, False):
        assert torch.equal(bayesian(x), net(x))
    assert torch.equal(bayesian[3].weight.mu, net[3].weight)


def test_a_network_may_be_one_layer_and_a_shared_layer_is_made_random_once():
    assert isinstance(bayesianize(nn.Linear(2, 2), BBB()), BayesianLayer)
    shared = nn.Linear(2, 2)
    net = bayesianize(nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)}), BBB())
    assert net["a"] is net["b"][0]
    assert len(list(random_tensors(net))) == 2  # one weight, one bias
    assert kl(net) == net["a"].weight.kl() + net["a"].bias.kl()


@pytest.mark.parametrize(
    ("only", "random"), [("fc2", ["fc2"]), ("fc*", ["fc1", "fc2"]), (["conv", "fc1"], ["conv", "fc1"])]
)
def test_only_the_named_layers_become_random(only, random):
    net = nn.ModuleDict({"conv": nn.Conv1d(1, 1, 1), "fc1": nn.Linear(1, 1), "fc2": nn.Linear(1, 1)})
    bayesian = bayesianize(net, BBB(), only=only)
    assert [name for name, module in bayesian.items() if isinstance(module, BayesianLayer)] == random


def test_a_name_that_no_layer_has_is_refused():
    with pytest.raises(ValueError, match=r"^only must name layers that can be random, 0, 3, got fc9\.$"):
        bayesianize(small(), BBB(), only="fc9")


def test_tied_weights_are_refused():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    with pytest.raises(ValueError, match=r"^net must have a weight for each random layer, got 0 and 1"):
        bayesianize(net, BBB())


def test_a_layer_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"^layer must be one of Conv1d, .*Linear(, \w+)*, got Bilinear\.$"):
        BayesianLayer(nn.Bilinear(2, 2, 2), BBB())


def test_a_network_of_torchvision_becomes_random():
    net = bayesianize(resnet18(num_classes=4), LRT()).eval()
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    assert sum(isinstance(module, BayesianLayer) for module in net.modules()) == 21


def test_sampling_is_restored_for_each_layer_even_after_an_error():
    net = bayesianize(small(), BBB())
    net[0].sampling = False

    def fails():
        with sampling(net, False):
            assert not net[3].sampling
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails()
    assert (net[0].sampling, net[3].sampling) == (False, True)


def test_kl_needs_no_forward_and_is_of_the_current_parameters():
    # A KL that forward passes left behind would be of other parameters, or of none.
    net = bayesianize(small(), BBB())
    before = kl(net)
    with sampling(net, False):
        net(torch.randn(1, 1, 4, 4))
    assert torch.equal(kl(net), before)
    with torch.no_grad():
        net[3].weight.rho.add_(1.0)
    assert kl(net) < before


def test_kl_of_a_deterministic_network_is_zero():
    assert kl(small()).item() == 0


def test_repr_tells_geometry_and_method():
    text = repr(BayesianLayer(nn.Conv2d(3, 16, 5, stride=2), LRT(prior_sigma=0.3)))
    assert "Conv2d(3, 16, kernel_size=(5, 5), stride=(2, 2))" in text
    assert "LRT(prior_sigma=0.3" in text


PLAIN_LAYERS = [
    nn.Linear(6, 4),
    nn.Linear(6, 4, bias=False),
    nn.Conv1d(2, 4, 3, stride=2, padding=1, dilation=2),
    nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0), groups=2, padding_mode="circular"),
    nn.Conv2d(2, 4, 3, padding="same", dilation=2),
]


@pytest.mark.parametrize("layer", PLAIN_LAYERS, ids=str)
def test_plain_is_the_inverse_of_bayesianize(layer):
    for method in (BBB(), Sparse(), HierarchicalA()):
        back = to_plain(bayesianize(layer, method).eval())
        assert repr(back) == repr(layer)
        assert back.state_dict().keys() == layer.state_dict().keys()
        assert all(torch.equal(back.state_dict()[name], value) for name, value in layer.state_dict().items())
        assert not back.training


def test_plain_leaves_the_network_alone_and_masks_what_it_is_told():
    net = bayesianize(small(), BBB())
    mask = torch.rand(4, 8) < 0.5
    masked = to_plain(net, {"3.weight": mask})
    assert torch.equal(masked[3].weight, net[3].weight.mu * mask)
    assert torch.equal(masked[0].weight, net[0].weight.mu)
    assert isinstance(net[3], BayesianLayer)
    masked[0].weight.data.zero_()
    assert net[0].weight.mu.abs().sum() > 0


def test_a_twins_values_start_a_random_network():
    twin = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4))
    twin[1].running_mean.normal_()
    net = bayesianize(twin, LRT())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
    load_plain_state_dict(net, twin.state_dict())
    x = torch.randn(3, 1, 4, 4)
    with sampling(net.eval(), False):
        assert torch.equal(net(x), twin.eval()(x))
    assert net[0].bias is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("3.bias"), r"^3\.bias must be \[4\] as in this network, got nothing\.$"),
        (lambda state: state.update(extra=torch.zeros(2)), r"^extra must be nothing as in this network, got \[2\]\.$"),
        (
            lambda state: state.update({"0.bias": torch.zeros(3)}),
            r"^0\.bias must be \[2\] as in this network, got \[3\]",
        ),
    ],
)
def test_another_networks_values_are_refused(change, message):
    state = dict(small().state_dict())
    change(state)
    net = bayesianize(small(), BBB())
    before = net[0].weight.mu.clone()
    with pytest.raises(ValueError, match=message):
        load_plain_state_dict(net, state)
    assert torch.equal(net[0].weight.mu, before)


def test_channels_behind_a_flattening_are_found_in_a_chain():
    net = bayesianize(LeNet(), LRT())
    assert (net.fc1.op.in_features, net.fc1.op.in_channels, net.fc2.op.in_channels) == (400, 16, 120)
    nested = nn.Sequential(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten()), nn.Sequential(nn.Linear(12, 2)))
    assert bayesianize(nested, LRT())[1][0].op.in_channels == 3
    deep = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    assert bayesianize(deep, LRT())[3].op.in_channels == 4
    transposed = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 2, 3), nn.Flatten(), nn.Linear(32, 2))
    assert bayesianize(transposed, LRT())[3].op.in_channels == 2
    shuffled = nn.Sequential(nn.Conv2d(1, 8, 3), nn.PixelShuffle(2), nn.Flatten(), nn.Linear(32, 2))
    assert bayesianize(shuffled, LRT())[3].op.in_channels == 32
    # Elsewhere it cannot be known, and each feature stands for itself.
    free = nn.ModuleDict({"conv": nn.Conv2d(1, 3, 3), "fc": nn.Linear(12, 2)})
    assert bayesianize(free, LRT())["fc"].op.in_channels == 12


def test_channels_must_divide_the_features():
    with pytest.raises(ValueError, match=r"^channels must divide the layer's 12 input features, got 5\.$"):
        BayesianLayer(nn.Linear(12, 2), LRT(), channels=5)


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("layer", PLAIN_LAYERS, ids=str)
def test_a_vector_over_inputs_is_the_same_on_the_input_and_on_the_weights(layer, channels):
    # Each input's factor, whether it multiplies the input or the weights that read it; groups read their own inputs.
    bayesian = BayesianLayer(layer, LRT(), channels).double()
    op, weight = bayesian.op, bayesian.weight.mu
    x = torch.randn(2, op.in_features, *(9,) * (weight.dim() - 2), dtype=torch.float64)
    for count in {op.in_features, op.in_channels}:
        by_input = torch.randn(count, dtype=torch.float64)
        on_input = op(x * op.over_inputs(by_input), weight, None)
        torch.testing.assert_close(on_input, op(x, weight * op.over_weights(by_input), None))
    by_output = torch.randn(len(weight), dtype=torch.float64)
    rows = by_output.view(-1, *(1,) * (weight.dim() - 1))
    torch.testing.assert_close(op(x, weight, None) * op.over_outputs(by_output), op(x, weight * rows, None))


@pytest.mark.parametrize(("method", "got"), [(LRT, "the class LRT"), (None, "NoneType"), ("LRT", "str")])
def test_a_method_is_an_object(method, got):
    with pytest.raises(ValueError, match=rf"^method must be an object, such as LRT\(\), got {got}\.$"):
        bayesianize(nn.Linear(2, 1), method)


def test_where_a_method_s_noise_enters_is_one_of_three_words():
    class Misspelt(LRT):
        noise_on = "output"

    with pytest.raises(ValueError, match=r"^noise_on of Misspelt must be weights, inputs or outputs, got 'output'\.$"):
        bayesianize(nn.Linear(2, 1), Misspelt())


def test_sigma_over_prior_is_a_mean_over_all_weights():
    net = bayesianize(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), LRT(prior_sigma=0.2), only="0")
    with torch.no_grad():
        net[0].weight.rho.fill_(math.log(math.expm1(0.1)))
        net[0].bias.rho.fill_(math.log(math.expm1(0.3)))
    assert sigma_over_prior(net) == pytest.approx((6 * 0.5 + 2 * 1.5) / 8)
    assert sigma_over_prior(nn.Linear(2, 2)) is None
    assert sigma_over_prior(bayesianize(nn.Linear(2, 2), LRT(prior=LearntScale()))) is None
