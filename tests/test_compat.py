import pytest
import torch
from torch import nn

from bnn_lightning import (
    BBB_LRT_Conv2d,
    BBB_LRT_Linear,
    BBBConv2d,
    BBBLinear,
    FlattenLayer,
    ModuleWrapper,
    kl,
    load_reference_state_dict,
    sampling,
)


class Net(ModuleWrapper):
    def __init__(self, conv=BBBConv2d, linear=BBBLinear, priors=None):
        super().__init__()
        self.conv = conv(3, 16, 5, stride=2, priors=priors)
        self.bn = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.flatten = FlattenLayer(16 * 14 * 14)
        self.fc = linear(16 * 14 * 14, 10, priors=priors)


@pytest.mark.parametrize(("conv", "linear"), [(BBBConv2d, BBBLinear), (BBB_LRT_Conv2d, BBB_LRT_Linear)])
def test_the_network_of_the_references_readme_runs(conv, linear):
    net = Net(conv, linear)
    logits, divergence = net(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    assert torch.equal(divergence, kl(net))
    assert divergence > 0


def test_default_priors_are_the_documented_ones():
    layer = BBBLinear(400, 400)
    assert layer.weight.prior_sigma.item() == pytest.approx(0.1)
    # of 160,000 draws from N(-3, .1) and N(0, .1)
    assert layer.weight.rho.mean().item() == pytest.approx(-3, abs=5 * 0.1 / 400)
    assert layer.weight.mu.mean().item() == pytest.approx(0, abs=5 * 0.1 / 400)
    assert layer.weight.mu.std().item() == pytest.approx(0.1, rel=5 / 400)


def test_nested_wrappers_count_their_kl():
    # A sum over direct children alone would leave out the layers of the inner network.
    class Outer(ModuleWrapper):
        def __init__(self):
            super().__init__()
            self.inner = Net()
            self.head = BBBLinear(10, 2)

    net = Outer()
    logits, divergence = net(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 2)
    expected = sum(
        part.kl() for layer in (net.inner.conv, net.inner.fc, net.head) for part in (layer.weight, layer.bias)
    )
    torch.testing.assert_close(divergence, expected)


def test_flatten_does_not_mix_images():
    assert FlattenLayer(12)(torch.randn(2, 3, 2, 2)).shape == (2, 12)
    message = r"^num_features must be what each image has here, 12 \(shape \(2, 3, 2, 2\)\), got 6\.$"
    with pytest.raises(ValueError, match=message):
        FlattenLayer(6)(torch.randn(2, 3, 2, 2))


def test_strides_and_other_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match=r"^BBBConv2d has no argument strides; write stride\.$"):
        BBBConv2d(3, 16, 5, strides=2)
    with pytest.raises(TypeError, match=r"^BBB_LRT_Conv2d has no argument alpha_shape\.$"):
        BBB_LRT_Conv2d(3, 16, 5, alpha_shape=(1, 1))


def test_a_state_dict_of_the_reference_is_loaded():
    net = Net()
    state = {}
    for name, shape in (("conv", (16, 3, 5, 5)), ("fc", (10, 16 * 14 * 14))):
        state |= {f"{name}.W_mu": torch.randn(shape), f"{name}.W_rho": torch.randn(shape)}
        state |= {f"{name}.bias_mu": torch.randn(shape[0]), f"{name}.bias_rho": torch.randn(shape[0])}
    state |= {f"bn.{name}": value for name, value in nn.BatchNorm2d(16).state_dict().items()}
    state["bn.weight"] = torch.full((16,), 3.0)
    load_reference_state_dict(net, state)
    assert torch.equal(net.conv.weight.mu, state["conv.W_mu"])
    assert torch.equal(net.fc.bias.rho, state["fc.bias_rho"])
    assert torch.equal(net.bn.weight, state["bn.weight"])
    x = torch.randn(2, 3, 32, 32)
    with sampling(net, False):
        hidden = net.relu(net.bn(nn.functional.conv2d(x, state["conv.W_mu"], state["conv.bias_mu"], stride=2)))
        expected = nn.functional.linear(hidden.flatten(1), state["fc.W_mu"], state["fc.bias_mu"])
        torch.testing.assert_close(net(x)[0], expected)
    with pytest.raises(RuntimeError, match="Missing key"):
        load_reference_state_dict(net, {key: value for key, value in state.items() if key != "fc.W_rho"})


def test_a_module_that_stands_in_two_places_runs_twice():
    class Twice(ModuleWrapper):
        def __init__(self):
            super().__init__()
            self.first = nn.Threshold(0.0, 5.0)
            self.minus = nn.Linear(1, 1, bias=False)
            self.again = self.first
            nn.init.constant_(self.minus.weight, -1.0)

    assert Twice()(torch.ones(1, 1))[0].item() == 5.0
