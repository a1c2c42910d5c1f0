"""Networks that hold, call or change things in ways of their own."""

from collections import OrderedDict, deque, namedtuple
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from bnn_lightning import (
    BBB,
    LRT,
    BayesianLayer,
    GaussianS,
    bayesianize,
    load_plain_state_dict,
    random_tensors,
    sample_logits,
    sampling,
    to_plain,
)
from bnn_lightning.checkpoints.parts import Parts
from bnn_lightning.core.posteriors.base import RandomWeightError

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


class Kept:
    """An object, not a module, that holds a layer."""

    def __init__(self, layer):
        self.layer = layer


@pytest.mark.parametrize(
    ("keep", "layer_of"),
    [
        (Kept, lambda kept: kept.layer),
        (namedtuple("Pair", "layer"), lambda kept: kept.layer),
        (lambda layer: {layer}, lambda kept: next(iter(kept))),
        (lambda layer: deque([layer]), lambda kept: kept[0]),
        (partial, lambda kept: kept.func),
    ],
    ids=["object", "namedtuple", "set", "deque", "partial"],
)
def test_layers_are_random_in_whatever_the_network_keeps_them_in(keep, layer_of):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.kept = keep(self.fc)

        def forward(self, x):
            return layer_of(self.kept)(x)

    net = bayesianize(Network(), BBB(rho_init=WIDE))
    assert layer_of(net.kept) is net.fc
    x = torch.randn(2, 4)
    assert not torch.equal(net(x), net(x))
    plain = to_plain(net)
    assert layer_of(plain.kept) is plain.fc


def test_a_compiled_layer_is_random():
    net = bayesianize(nn.Sequential(torch.compile(nn.Linear(4, 1), backend="eager")), BBB(rho_init=WIDE))
    x = torch.randn(2, 4)
    assert not torch.equal(net(x), net(x))


GRADIENTS = []


class Counts(nn.Module):
    """Has a hook on a layer that is a method of the network, and one for gradients."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.seen = []
        self.fc.register_forward_hook(self.see)
        self.fc.register_full_backward_hook(lambda *_: GRADIENTS.append(1))

    def see(self, layer, inputs, outputs):
        self.seen.append(layer)

    def forward(self, x):
        return self.fc(x)


def test_hooks_of_a_layer_go_over_and_back_and_belong_to_the_copy():
    net = Counts()
    for copied in (bayesianize(net, BBB()), to_plain(bayesianize(net, BBB()))):
        GRADIENTS.clear()
        copied(torch.randn(2, 4, requires_grad=True)).sum().backward()
        assert copied.seen == [copied.fc]
        assert GRADIENTS == [1]
    assert net.seen == []


class Tempered(nn.Linear):
    """Computes as Linear, and has a number of its own that the network reads."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.temperature = nn.Parameter(torch.tensor(5.0))


def test_a_layer_that_holds_more_than_its_kind_stays_as_it_is():
    chain = nn.Sequential(Tempered(4, 4), nn.Linear(4, 2))
    with pytest.warns(UserWarning, match=r"stay deterministic: 0 \(Tempered, 16\)\.$"):
        net = bayesianize(chain, BBB())
    assert net[0].temperature == 5.0
    assert len(list(net[1].parameters())) == 4


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


def test_attention_that_cannot_be_random_stays_whole():
    for attention in (SelfAttention(8, 2), nn.MultiheadAttention(8, 2, add_zero_attn=True)):
        with pytest.warns(UserWarning, match="stay deterministic: 0 "):
            net = bayesianize(nn.Sequential(attention, nn.Linear(8, 2)), BBB())
        assert [name for name, _ in net.named_parameters() if "rho" in name] == ["1.weight.rho", "1.bias.rho"]
    tokens = torch.randn(2, 3, 8)
    assert net[0](tokens, tokens, tokens)[0].shape == tokens.shape


def test_complex_layers_stay_deterministic():
    with pytest.warns(UserWarning, match="stay deterministic: 0 "):
        net = bayesianize(nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64), nn.Linear(4, 4)), BBB())
    assert isinstance(net[0], nn.Linear)


@pytest.mark.parametrize("read", [lambda w: w.t(), lambda w: w.abs(), torch.square], ids=["t", "abs", "square"])
def test_computing_with_a_random_weight_gets_a_sentence(read):
    net = bayesianize(nn.Linear(4, 3), BBB())
    with pytest.raises(RandomWeightError, match=r"^network gives the weight of a random layer to (t|abs|square) inst"):
        read(net.weight)
    assert not hasattr(net.weight, "abs")


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


def test_a_class_in_only_is_that_of_derived_and_parametrised_layers_too():
    class Own(nn.Linear):
        pass

    chain = nn.Sequential(weight_norm(nn.Linear(4, 4)), Own(4, 4), nn.Linear(4, 2), nn.Conv1d(2, 2, 1))
    net = bayesianize(chain, BBB(), only="Linear")
    assert [isinstance(layer, BayesianLayer) for layer in net] == [True, True, True, False]


def test_norm_layers_are_left_out_by_name_and_where_they_are_frozen():
    def chain():
        return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 4, 3), bn1=nn.BatchNorm2d(4), bn2=nn.BatchNorm2d(4)))

    net = bayesianize(chain(), BBB(), only=["*", "BatchNorm2d", "!bn1"])
    assert [name for name, _ in random_tensors(net)] == ["conv.weight", "conv.bias", "bn2.weight", "bn2.bias"]
    parts = Parts(network=chain(), method=BBB(), only=["*", "BatchNorm2d"], freeze="bn1")
    assert isinstance(parts.build()[0].bn1, nn.BatchNorm2d)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_recurrent_and_embedding_layers_with_parametrisations_become_random_at_their_values():
    lstm = nn.LSTM(4, 4)
    nn.utils.weight_norm(lstm, "weight_hh_l0")
    tokens = torch.randn(3, 2, 4)
    expected = lstm(tokens)[0]  # holds what its hook has computed from now on
    with sampling(net := bayesianize(lstm, BBB()), False):
        torch.testing.assert_close(net(tokens)[0], expected)
    embedding = spectral_norm(nn.Embedding(5, 4)).eval()
    words = torch.arange(5)
    with sampling(net := bayesianize(embedding, BBB()), False):
        torch.testing.assert_close(net(words), embedding(words))


@pytest.mark.parametrize(("between", "channels"), [(nn.GLU(1), 64), (nn.ReLU(), 8), (nn.MaxPool2d(1), 8)], ids=str)
def test_channels_are_counted_through_layers_that_are_known_to_keep_them(between, channels):
    chain = nn.Sequential(nn.Conv2d(1, 8, 3), between, nn.Flatten(), nn.Linear(64, 2))
    assert bayesianize(chain, GaussianS(mask="channel"))[3].op.in_channels == channels
