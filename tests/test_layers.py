import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from bnn_lightning import BBB, LRT, BayesianLayer, bayesianize, kl, sampling
from bnn_lightning.layers import posteriors


def small():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))


def test_bayesianize_copies_and_keeps_the_weights_as_means():
    # T5.2
    net = small()
    bayesian = bayesianize(net, LRT())
    assert [type(module) for module in net] == [nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear]
    assert [type(module) for module in bayesian] == [BayesianLayer, nn.ReLU, nn.Flatten, BayesianLayer]
    x = torch.randn(3, 1, 4, 4)
    with sampling(bayesian, False):
        assert torch.equal(bayesian(x), net(x))
    assert torch.equal(bayesian[3].weight.mu, net[3].weight)


def test_root_layer_and_shared_layer():
    assert isinstance(bayesianize(nn.Linear(2, 2), BBB()), BayesianLayer)
    shared = nn.Linear(2, 2)
    net = bayesianize(nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)}), BBB())
    assert net["a"] is net["b"][0]
    assert len(list(posteriors(net))) == 2  # one weight, one bias
    assert kl(net) == net["a"].weight.kl() + net["a"].bias.kl()


@pytest.mark.parametrize(
    ("only", "random"), [("fc2", ["fc2"]), ("fc*", ["fc1", "fc2"]), (["conv", "fc1"], ["conv", "fc1"])]
)
def test_only(only, random):
    net = nn.ModuleDict({"conv": nn.Conv1d(1, 1, 1), "fc1": nn.Linear(1, 1), "fc2": nn.Linear(1, 1)})
    made = bayesianize(net, BBB(), only=only)
    assert [name for name, module in made.items() if isinstance(module, BayesianLayer)] == random


def test_only_that_names_nothing():
    with pytest.raises(ValueError, match=r"^only='fc9' names no layer that can be random; this network has: 0, 3\.$"):
        bayesianize(small(), BBB(), only="fc9")


def test_tied_weights_are_refused():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    with pytest.raises(ValueError, match=r"^0 and 1 share a weight, which two random layers would draw twice"):
        bayesianize(net, BBB())


def test_unsupported_layer():
    with pytest.raises(TypeError, match=r"^layer must be one of Linear, Conv1d, Conv2d, got Bilinear\.$"):
        BayesianLayer(nn.Bilinear(2, 2, 2), BBB())


def test_any_torchvision_network():
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
    # T2.7
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
