"""Networks that hold, call or change things in ways of their own."""

import pytest
import torch
from torch import nn

from bnn_lightning import BBB, LRT, bayesianize, load_plain_state_dict, sample_logits, sampling, to_plain

WIDE = (-1.0, 0.3)


class Listed(nn.Module):
    """Layers that are attributes, and that forward goes through by a plain list."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)
        self.order, self.by_name = [self.a, self.b], {"last": (self.b,)}

    def forward(self, x):
        return self.order[1](self.order[0](x))


def test_layers_are_replaced_wherever_the_network_holds_them():
    net = bayesianize(Listed(), BBB(rho_init=WIDE))
    assert net.order[0] is net.a
    assert net.by_name["last"][0] is net.b
    x = torch.randn(2, 4)
    assert not torch.equal(net(x), net(x))
    plain = to_plain(net)
    assert plain.order == [plain.a, plain.b]


class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.head = lambda x: self.fc(x)

    def forward(self, x):
        return self.head(x)


def test_a_function_that_holds_the_network_is_refused():
    with pytest.raises(ValueError, match=r"^net must hold functions that a copy can take along, got head of the"):
        bayesianize(Calls(), BBB())


class Asks(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x).relu() if isinstance(self.fc, nn.Linear) else self.fc(x)


def test_a_forward_pass_that_asks_for_the_class_of_a_layer_is_named():
    with pytest.warns(UserWarning, match=r"^Asks\.forward asks isinstance of Linear, which its random layers are not"):
        bayesianize(Asks(), BBB())


def test_sizes_types_and_output_sizes_are_those_of_the_plain_layer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(2, 3, 3, stride=2), nn.Linear(4, 5))
    bayesian, x = bayesianize(net, LRT()), torch.randn(1, 2, 3, 3)
    assert (bayesian[1].in_features, bayesian[0].kernel_size, bayesian[0].stride) == (4, (3, 3), (2, 2))
    weight = bayesian[0].weight
    assert (weight.shape, weight.dtype, weight.device) == (net[0].weight.shape, torch.float32, torch.device("cpu"))
    with sampling(bayesian, False):
        for size in ([7, 8], [1, 3, 8, 7]):
            expected = net[0](x, output_size=size[-2:])
            torch.testing.assert_close(bayesian[0](x, output_size=size), expected)
    with pytest.raises(ValueError, match=r"^output_size must be \[7, 7\] or less than a stride more, got \[9, 7\]\.$"):
        bayesian[0](x, output_size=[9, 7])


def test_pruned_layers_and_padded_embeddings():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3))
    nn.utils.prune.l1_unstructured(net[0], "weight", 0.5)
    bayesian, x = bayesianize(net, LRT()), torch.randn(2, 4)
    with sampling(bayesian, False):
        torch.testing.assert_close(bayesian(x), net(x))
    assert (bayesian[0].weight.mu == 0).sum() == 6
    assert list(to_plain(bayesian).state_dict()) == ["0.weight", "0.bias"]
    words = nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.Linear(3, 2))
    with pytest.warns(UserWarning, match=r"stay deterministic: 0 \(Embedding, 15\)\.$"):
        made = bayesianize(words, BBB())
    assert isinstance(made[0], nn.Embedding)


@pytest.mark.parametrize(
    "wrap", [lambda s: {"epoch": 3, "state_dict": s}, lambda s: s | {"n_averaged": torch.tensor(4)}]
)
def test_state_dicts_among_other_things_load(wrap):
    net, other = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 3))
    bayesian = bayesianize(net, BBB())
    load_plain_state_dict(bayesian, wrap({f"module.{name}": value for name, value in other.state_dict().items()}))
    assert torch.equal(bayesian[0].weight.mu, other[0].weight)
    with pytest.raises(ValueError, match=r"^state_dict must be tensors by name, got Sequential; use its state"):
        load_plain_state_dict(bayesian, other)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x.div_(2))


@pytest.mark.parametrize("draws", ["weights", "local", "mean"])
def test_a_network_that_changes_its_input_is_sampled_at_the_input_itself(draws):
    torch.manual_seed(0)
    net, x = bayesianize(InPlace(), BBB(rho_init=WIDE)), torch.randn(2, 4)
    before = x.clone()
    together, alone = (sample_logits(net, x, 4, draws, chunk=chunk) for chunk in (100, 1))
    assert torch.equal(x, before)
    if draws == "weights":
        torch.testing.assert_close(together, alone)
    with sampling(net, False):
        torch.testing.assert_close(sample_logits(net, x, 1, "mean")[0], net.fc(before / 2))
