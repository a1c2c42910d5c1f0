"""What bayesianize makes of networks as people have them, and the way back."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from bnn_lightning import (
    BBB,
    LRT,
    Flipout,
    GaussianW,
    MCDropout,
    VariationalA,
    VariationalB,
    bayesian_layers,
    bayesianize,
    describe,
    draw,
    kl,
    load_plain_state_dict,
    random_tensors,
    sample_logits,
    sampling,
    to_plain,
)
from bnn_lightning.core.drawn_layers import DrawnLayer
from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.ops import kind_of

WIDE = (-1.0, 0.3)
METHODS = {
    "BBB": BBB(rho_init=WIDE),
    "LRT": LRT(rho_init=WIDE),
    "Flipout": Flipout(rho_init=WIDE),
    "MCDropout": MCDropout(p=0.3),
    "GaussianW": GaussianW(p=0.3),
    "VariationalA": VariationalA(p=0.3),
    "VariationalB": VariationalB(p=0.3),
    "VariationalB_on_outputs": VariationalB(p=0.3, noise_on="outputs"),
    "VariationalB_output": VariationalB(p=0.3, alpha="output"),
}


class Tokens(nn.Module):
    """Words to classes through every kind of layer whose weights are drawn."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.lstm = nn.LSTM(4, 3, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(6, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.pairs = nn.Bilinear(4, 4, 3)

    def forward(self, x):
        y = self.gru(self.lstm(self.words(x))[0])[0]
        y = self.attention(y, y, y, need_weights=False)[0].mean(1)
        return self.pairs(y, y)


class Sequence(nn.Module):
    """The last output of an LSTM."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0][:, -1]


def tokens():
    torch.manual_seed(0)
    return Tokens(), torch.randint(0, 7, (3, 5))


@pytest.mark.parametrize("name", METHODS)
def test_drawn_layers_and_attention_under_every_method(name):
    net, x = tokens()
    bayesian = bayesianize(net, METHODS[name])
    assert [layer.kind for layer in bayesian_layers(bayesian)] == [
        "Embedding", "LSTM", "GRU", "MultiheadAttention", "Bilinear"
    ]  # fmt: skip
    assert [name for name, _ in random_tensors(bayesian)] == [name for name, _ in net.named_parameters()]
    with sampling(bayesian, False):
        torch.testing.assert_close(bayesian(x), net(x), rtol=1e-5, atol=1e-6)
    ys = [bayesian(x) for _ in range(20)]  # dropout may hide an input in one of them
    assert not torch.equal(ys[0], ys[1])
    (sum(y.square().sum() for y in ys) + kl(bayesian)).backward()
    for parameter, value in bayesian.named_parameters():
        assert torch.isfinite(value.grad).all(), parameter
    torch.testing.assert_close(to_plain(bayesian)(x), net(x))
    assert to_plain(bayesian).state_dict().keys() == net.state_dict().keys()


def test_one_draw_of_the_weights_serves_batch_and_sequence():
    # An LSTM under LRT: the outputs are those of the plain one at weights that were drawn once.
    torch.manual_seed(0)
    net = nn.LSTM(4, 3, batch_first=True)
    layer = bayesianize(net, LRT(rho_init=WIDE))
    x = torch.randn(1, 6, 4).repeat(2, 1, 1)
    torch.manual_seed(1)
    y, (hidden, _) = layer(x)
    assert torch.equal(y[0], y[1])
    torch.manual_seed(1)
    drawn = {name: posterior.sample() for name, posterior in layer.tensors().items()}
    expected, (expected_hidden, _) = torch.func.functional_call(net, drawn, (x,))
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(hidden, expected_hidden)


def test_samples_of_networks_that_draw_for_the_batch_are_independent():
    # Copies of an image in one batch would share the draw of the LSTM's weights, and be one sample.
    torch.manual_seed(0)
    net = bayesianize(nn.Sequential(Sequence(), nn.Linear(3, 2)), LRT(rho_init=WIDE), "0*")
    samples = sample_logits(net, torch.randn(4, 5, 4), 3, "local")
    assert len({tuple(sample.flatten().tolist()) for sample in samples}) == 3
    assert not bayesian_layers(net)[0].examples_are_independent


@pytest.mark.parametrize(
    ("settings", "is_self"),
    [
        (settings, is_self)
        for settings in ({}, {"bias": False}, {"batch_first": True}, {"kdim": 3, "vdim": 5}, {"dropout": 0.5})
        for is_self in (True, False)
        if not (is_self and "kdim" in settings)  # queries of another width are no keys
    ],
    ids=str,
)
def test_random_attention_at_its_means_is_torchs(settings, is_self):
    torch.manual_seed(0)
    net = nn.MultiheadAttention(4, 2, **settings).eval()
    layer = bayesianize(net, LRT(rho_init=WIDE)).eval()
    lengths = (2, 5) if settings.get("batch_first") else (5, 2)
    query = torch.randn(*lengths, 4)
    key = query if is_self else torch.randn(*lengths, settings.get("kdim", 4))
    value = query if is_self else torch.randn(*lengths, settings.get("vdim", 4))
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    calls = [
        {},
        {"attn_mask": later, "average_attn_weights": False},
        {"attn_mask": torch.randn(4, 5, 5), "key_padding_mask": torch.zeros(2, 5).masked_fill(padding, -torch.inf)},
        {"key_padding_mask": padding, "need_weights": False},
    ]
    with sampling(layer, False):
        for call in calls:
            for ours, theirs in zip(layer(query, key, value, **call), net(query, key, value, **call), strict=True):
                assert (ours is None) == (theirs is None)
                if theirs is not None:
                    torch.testing.assert_close(ours, theirs)
        one = [x[0] if settings.get("batch_first") else x[:, 0] for x in (query, key, value)]
        torch.testing.assert_close(layer(*one)[0], net(*one)[0])
        with pytest.raises(ValueError, match=r"^attn_mask must be given where is_causal says"):
            layer(query, key, value, is_causal=True)


def test_projections_of_attention_have_the_moments_of_the_method():
    # Queries and keys at 0, so that the output is the mean of the values, projected: linear in what is drawn.
    torch.manual_seed(0)
    net = nn.MultiheadAttention(2, 1, bias=False, batch_first=True).double()
    with torch.no_grad():
        net.in_proj_weight[:4] = 0
    bayesian = bayesianize(net, BBB(rho_init=(-1.0, 0.0)))
    with torch.no_grad():
        for posterior in (bayesian.in_proj_weight, bayesian.out_proj.weight):
            posterior.rho[: len(posterior.rho) - 2] = -40.0  # all but the values, and the last projection
        bayesian.out_proj.weight.rho.fill_(-40.0)
    x = torch.randn(1, 1, 2).double()
    with torch.no_grad():
        y = torch.vmap(lambda _: bayesian(x, x, x)[0].flatten(), randomness="different")(torch.zeros(20_000))
    sigma = torch.tensor(-1.0).exp().log1p().double()
    mean = net(x, x, x)[0].flatten().detach()
    variance = sigma**2 * x.square().sum() * net.out_proj.weight.square().sum(1).detach()
    assert ((y.mean(0) - mean).abs() <= 5 * (variance / 20_000).sqrt()).all()
    assert ((y.var(0) - variance).abs() <= 5 * variance * (2 / 20_000) ** 0.5).all()


def test_torchs_transformer_layer_takes_random_parts():
    # In eval mode without gradients it would read the weights of its parts itself.
    torch.manual_seed(0)
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2, enable_nested_tensor=False)
    bayesian = bayesianize(net, BBB(rho_init=WIDE)).eval()
    x = torch.randn(2, 3, 4)
    with torch.no_grad():
        assert not torch.equal(bayesian(x), bayesian(x))
        with sampling(bayesian, False):
            torch.testing.assert_close(bayesian(x), net.eval()(x))


class SameConv(nn.Conv2d):
    def __init__(self, channels, width):
        super().__init__(channels, width, 3)

    def note(self):
        return "a method more"


class ScaledConv(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class PaddedConv(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight + 1, bias)


def test_derived_classes_count_as_their_kind_unless_they_change_what_it_computes():
    assert kind_of(SameConv(1, 2), (nn.Conv2d,)) is nn.Conv2d
    assert kind_of(ScaledConv(1, 2, 3), (nn.Conv2d,)) is None
    assert kind_of(PaddedConv(1, 2, 3), (nn.Conv2d,)) is None
    net = nn.Sequential(SameConv(1, 2), nn.Flatten(), nn.Linear(8, 2))
    bayesian, x = bayesianize(net, LRT()), torch.randn(2, 1, 4, 4)
    assert isinstance(bayesian[0], BayesianLayer)
    with sampling(bayesian, False):
        assert torch.equal(bayesian(x), net(x))


def test_what_stays_deterministic_is_named_once_with_counts():
    net = nn.Sequential(ScaledConv(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    with pytest.warns(UserWarning, match=r"^these weights are .* stay deterministic: 0 \(ScaledConv, 18\)\.$") as said:
        bayesian = bayesianize(net, LRT())
    assert len(said) == 1
    assert (describe(bayesian).random, describe(bayesian).deterministic) == (18, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bayesianize(net, LRT(), only="3")  # who names layers has seen the others


def test_patterns_choose_leave_out_and_name_classes():
    def chosen(only):
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2), nn.Linear(2, 2))
        return [index for index, layer in enumerate(bayesianize(net, BBB(), only)) if hasattr(layer, "sampling")]

    assert chosen("*") == [0, 3, 4]
    assert chosen(["*", "!4"]) == [0, 3]
    assert chosen("!0") == [3, 4]
    assert chosen("Linear") == [3, 4]
    assert chosen(["*", "BatchNorm2d"]) == [0, 1, 3, 4]
    assert chosen(["*", "!Linear"]) == [0]
    with pytest.raises(ValueError, match=r"^only must name layers that can be random, .*, got !head\.$"):
        chosen(["*", "!head"])


def test_norm_scales_are_random_where_they_are_named():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    bayesian = bayesianize(net, BBB(rho_init=WIDE), ["*", "BatchNorm2d"])
    assert isinstance(bayesian[1], DrawnLayer)
    x = torch.randn(4, 1, 5, 5)
    with sampling(bayesian, False):
        torch.testing.assert_close(bayesian(x), net(x))
    torch.testing.assert_close(bayesian[1].running_mean, net[1].running_mean)  # its statistics go on
    assert bayesian[1].num_batches_tracked == 1
    assert not torch.equal(bayesian.eval()(x), bayesian(x))
    assert to_plain(bayesian).state_dict().keys() == net.state_dict().keys()
    torch.testing.assert_close(to_plain(bayesian)(x), net.eval()(x))


@pytest.mark.parametrize("method", [BBB(), LRT(), VariationalB(), MCDropout()], ids=str)
def test_frozen_tensors_stay_frozen_both_ways(method):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.LSTM(3, 2))
    net[0].requires_grad_(False)
    net[2].bias.requires_grad_(False)
    net[3].weight_hh_l0.requires_grad_(False)
    frozen = {"0.weight", "0.bias", "2.bias", "3.weight_hh_l0"}

    def found(bayesian):
        return {
            name
            for name, posterior in random_tensors(bayesian)
            if not any(p.requires_grad for p in posterior.parameters())
        }

    bayesian = bayesianize(net, method)
    assert found(bayesian) == frozen
    load_plain_state_dict(bayesian, net.state_dict())
    assert found(bayesian) == frozen
    assert {name for name, value in to_plain(bayesian).named_parameters() if not value.requires_grad} == frozen
    assert {name for name, value in net.named_parameters() if not value.requires_grad} == frozen


@pytest.mark.parametrize(
    "normed",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
        pytest.param(nn.utils.weight_norm, marks=pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")),
        nn.utils.spectral_norm,
    ],
    ids=lambda function: function.__module__.rpartition(".")[2],
)
def test_parametrised_layers_become_random_at_their_values(normed):
    torch.manual_seed(0)
    net = nn.Sequential(normed(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2)).eval()
    x = torch.randn(2, 4)
    expected = net(x)
    bayesian = bayesianize(net, LRT())
    with sampling(bayesian, False):
        torch.testing.assert_close(bayesian(x), expected)
    assert list(to_plain(bayesian).state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    torch.testing.assert_close(net(x), expected)  # the network that was copied is as it was


def test_lazy_layers_are_refused_until_a_batch_has_come():
    net = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"^net must know the sizes of its layers, got the lazy 0; run a batch"):
        bayesianize(net, BBB())
    net(torch.randn(2, 4))
    assert len(bayesian_layers(bayesianize(net, BBB()))) == 1


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_state_dicts_of_wrappers_load(prefix):
    net, other = (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)) for _ in range(2))
    bayesian = bayesianize(net, BBB())
    load_plain_state_dict(bayesian, {prefix + name: value for name, value in other.state_dict().items()})
    assert torch.equal(bayesian[0].weight.mu, other[0].weight)
    with pytest.raises(ValueError, match=r"^0\.bias must be \[3\] as in this network, got nothing"):
        load_plain_state_dict(bayesian, {"0.weight": other[0].weight})


def test_a_network_that_reads_a_random_weight_is_told_so():
    layer = bayesianize(nn.Linear(4, 3), BBB())
    with pytest.raises(TypeError, match=r"^network gives the weight of a random layer to linear instead of calling"):
        nn.functional.linear(torch.randn(2, 4), layer.weight)


def test_hooks_go_over_and_back():
    net, seen = nn.Sequential(nn.Linear(4, 3)), []
    net[0].register_forward_hook(lambda module, args, output: seen.append(type(module)))
    bayesian = bayesianize(net, BBB())
    bayesian(torch.randn(2, 4))
    to_plain(bayesian)(torch.randn(2, 4))
    assert seen == [BayesianLayer, nn.Linear]


def test_joint_draws_of_drawn_layers_are_weights_of_the_plain_network():
    net, x = tokens()
    bayesian = bayesianize(net, BBB(rho_init=WIDE))
    torch.manual_seed(1)
    drawn = draw(bayesian)
    assert {name: value.shape for name, value in drawn.items()} == {n: p.shape for n, p in net.named_parameters()}
    assert torch.isfinite(torch.func.functional_call(to_plain(bayesian), drawn, (x,))).all()
