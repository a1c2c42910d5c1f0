import copy

import pytest
import torch
from torch import nn

from bnn_lightning import (
    BBB,
    LRT,
    Ensemble,
    Flipout,
    MCDropout,
    Sampler,
    VariationalB,
    bayesianize,
    mutual_information,
)
from bnn_lightning.core.whole_network import random_tensors
from bnn_lightning.evaluation.draws import draws_of
from bnn_lightning.evaluation.sampler import sample_logits

WIDE = (-1.0, 0.1)
X = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(1))


def network(method=None):
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(27, 4)
    )
    plain(torch.randn(20, 2, 5, 5))  # gives batch norm statistics of its own
    return plain if method is None else bayesianize(plain, method)


def by_hand(net, weights, x):
    """The network in eval mode with given weights, step by step."""
    norm = net[1]
    y = nn.functional.conv2d(x, weights["0.weight"], weights["0.bias"])
    y = nn.functional.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return nn.functional.linear(y.relu().flatten(1), weights["5.weight"], weights["5.bias"])


@pytest.mark.parametrize("method", [LRT(rho_init=WIDE), BBB(rho_init=WIDE), Flipout(rho_init=WIDE)], ids=repr)
@pytest.mark.parametrize("chunk", [1, 18, 1000])
def test_a_weight_draw_is_one_function_of_all_images(method, chunk):
    net = network(method)
    sampler = Sampler(net, 7, seed=3, chunk=chunk)
    logits = sampler(X)
    assert logits.shape == (7, 6, 4)
    # Some draw of the weights gives all six images' logits: the one that its seed names.
    for number in range(7):
        with torch.random.fork_rng():
            torch.manual_seed((((0x5EED * 1_000_003 + 3) * 1_000_003 + number) * 1_000_003) % (1 << 63))
            weights = {
                f"{name}.{part}": getattr(net[int(name)], part).sample() for name in "05" for part in ("weight", "bias")
            }
        torch.testing.assert_close(logits[number], by_hand(net, weights, X), rtol=1e-4, atol=1e-5)
    # An image's logits do not depend on the batch that it comes in.
    torch.testing.assert_close(sampler(X[4:5]), logits[:, 4:5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("draws", ["weights", "local"])
@pytest.mark.parametrize("method", [LRT(rho_init=WIDE), BBB(rho_init=WIDE)], ids=repr)
def test_draws_differ_and_show_epistemic_uncertainty(method, draws):
    # Each sample has noise of its own: one draw for all of them would leave no mutual information.
    for chunk in (1, 1000):
        logits = Sampler(network(method), 5, draws, chunk=chunk)(X)
        assert len({tuple(sample.flatten().tolist()) for sample in logits}) == 5
        assert (mutual_information(logits) > 1e-4).all()


@pytest.mark.parametrize("draws", ["weights", "local", "mean"])
def test_samples_follow_their_seed_and_leave_everything_as_it_was(draws):
    net = network(LRT(rho_init=WIDE)).train()
    net[3].eval()
    state, generator = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    first = Sampler(net, 5, draws, seed=1)(X)
    assert torch.equal(first, Sampler(net, 5, draws, seed=1)(X))
    assert torch.equal(first, Sampler(net, 5, draws, seed=2)(X)) == (draws == "mean")
    assert not first.requires_grad
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net] == [True, True, True, False, True, True]
    assert all(layer.sampling for layer in (net[0], net[5]))


def chain_with_a_module_twice(kind):
    """A chain with one module in two places."""
    module = {"activation": nn.ReLU(), "linear": nn.Linear(6, 6), "norm": nn.BatchNorm1d(6)}[kind]
    if kind == "linear":
        between = (module, nn.Tanh(), module)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), *between, nn.ReLU(), nn.Linear(6, 3))
    return nn.Sequential(
        nn.Flatten(), module if kind == "activation" else nn.ReLU(), nn.Linear(48, 6), module, nn.Linear(6, 6), module
    )


@pytest.mark.parametrize("place", ["first layer", "network"])
@pytest.mark.parametrize("draws", ["weights", "local", "mean"])
def test_hooks_run_in_every_draw(place, draws):
    net = bayesianize(nn.Sequential(nn.Linear(3, 2), nn.Flatten()), LRT(rho_init=(-30.0, 0.0)))
    of = net if place == "network" else net[0]
    x = torch.randn(4, 3)
    expected = net(x).detach()
    of.register_forward_hook(lambda module, inputs, output: output + 100)
    of.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    doubled = 2 * expected - net[0].bias.mean + 100 if place == "first layer" else None
    for logits in Sampler(net, 2, draws)(x):
        torch.testing.assert_close(logits, net(x).detach(), atol=1e-4, rtol=0)
        if doubled is not None:
            torch.testing.assert_close(logits, doubled.detach(), atol=1e-4, rtol=0)


def test_moments_are_of_each_image_by_itself():
    """Two inputs that share no weight are independent; samples of their moments are not, and say that they are not."""
    net = bayesianize(nn.Sequential(nn.Linear(2, 2, bias=False)), LRT(rho_init=(3.0, 0.0)))
    assert [Sampler(net, 4, draws).is_joint for draws in ("weights", "mean", "local", "moments")] == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["activation", "linear", "norm"])
@pytest.mark.parametrize("method", [None, LRT(rho_init=(-30.0, 0.0)), BBB(rho_init=(-30.0, 0.0))])
@pytest.mark.parametrize("draws", ["weights", "local", "mean"])
def test_a_module_that_stands_in_two_places_is_run_in_both(kind, method, draws):
    net = chain_with_a_module_twice(kind).double().train()
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        net(x + 1)  # statistics of its own, for the norm
        expected = net.eval()(x)
    if method is None and draws != "mean":
        draws = None
    # Nearly without noise (the variance of outputs has a floor of 1e-16), so that each sample is the network itself.
    samples = Sampler(net if method is None else bayesianize(net, method), 3, draws)(x)
    for logits in samples:
        torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)


def test_noise_of_local_draws_differs_between_batches():
    sampler = Sampler(network(LRT(rho_init=WIDE)), 3, "local")
    assert not torch.equal(sampler(X, 0), sampler(X, 1))
    assert torch.equal(sampler(X, 1), sampler(X, 1))


def test_repeated_images_are_samples_only_where_examples_are_independent():
    # The reference's fault: with one draw for the batch all copies of an image are the same sample.
    sampler = Sampler(network(BBB(rho_init=WIDE)), 3, "local", chunk=1000)
    sampler(X)  # trials of an image or three precede the first batch
    calls = []
    sampler.nets[0][-1].register_forward_hook(lambda _, args, y: calls.append(len(args[0])))
    sampler(X)
    assert calls == [6, 6, 6]
    sampler = Sampler(network(LRT(rho_init=WIDE)), 5, "local", chunk=12)
    sampler(X)
    calls = []
    sampler.nets[0][-1].register_forward_hook(lambda _, args, y: calls.append(len(args[0])))
    sampler(X)
    assert calls == [12, 12, 6]


@pytest.mark.slow
def test_moments_of_weight_draws_and_local_draws_agree_for_a_linear_layer():
    # Exact for one linear layer: both have the mean and variance of random weights. Over n draws the difference of two
    # means has the standard error sqrt(2 var / n); that of log variances sqrt(2 * 2 / n).
    net = bayesianize(nn.Linear(4, 3), LRT(rho_init=WIDE))
    x, n = torch.randn(2, 4), 5_000
    samples = [Sampler(net, n, draws, seed=seed)(x) for draws, seed in (("weights", 0), ("local", 1))]
    variance = samples[0].var(0)
    assert ((samples[0].mean(0) - samples[1].mean(0)).abs() < 5 * (2 * variance / n).sqrt()).all()
    assert ((samples[1].var(0) / variance).log().abs() < 5 * (4 / n) ** 0.5).all()


def test_what_is_drawn_by_default_follows_from_the_method():
    assert draws_of(network(LRT())) == "weights"
    assert draws_of(network(MCDropout())) == "local"
    assert draws_of(network(VariationalB(noise_on="outputs"))) == "local"
    assert draws_of(network()) == "mean"
    assert len(Sampler(network(), 25)(X)) == 1
    assert len(Sampler(network(LRT()), 25, "mean")(X)) == 1


def test_mean_weights_are_the_plain_network_in_eval_mode():
    net = network()
    with torch.no_grad():
        expected = net.eval()(X)
    torch.testing.assert_close(Sampler(bayesianize(net.train(), LRT()), 25, "mean")(X)[0], expected)


def test_samples_differ_where_only_some_layers_are_random():
    net = bayesianize(network(), LRT(rho_init=WIDE), only="5")
    assert len({tuple(sample.flatten().tolist()) for sample in Sampler(net, 4)(X)}) == 4


def test_drawn_weights_that_are_too_many_to_keep_are_drawn_again():
    net = network(LRT(rho_init=WIDE))
    keeping = Sampler(net, 6, chunk=18)
    expected = keeping(X)
    assert {len(values) for values in keeping._drawn[0].values()} == {6}
    sampler = Sampler(net, 6, chunk=18, kept_bytes=1000)
    torch.testing.assert_close(sampler(X), expected)
    torch.testing.assert_close(sampler(X), expected)
    assert not sampler._drawn


@pytest.mark.parametrize("draws", ["weights", "local", "mean"])
def test_a_replica_shares_tensors_and_draws_and_not_modules(draws):
    sampler = Sampler(Ensemble([network(LRT(rho_init=WIDE)), network(LRT(rho_init=WIDE))]), 6, draws)
    expected = sampler(X)
    replica = sampler.replica()
    assert torch.equal(replica(X), expected)
    assert replica._drawn is sampler._drawn
    for net, other in zip(sampler.nets, replica.nets, strict=True):
        assert not set(net.modules()) & set(other.modules())
        assert {id(tensor) for tensor in net.parameters()} == {id(tensor) for tensor in other.parameters()}


def test_an_ensemble_has_equally_many_samples_of_each_member():
    members = [network(LRT(rho_init=WIDE)), network(LRT(rho_init=WIDE))]
    with torch.no_grad():
        members[1][5].bias.mu += 100
    logits = Sampler(Ensemble(members), 5)(X)
    assert (logits.mean((1, 2)) > 50).tolist() == [False, False, False, True, True, True]
    assert len({tuple(sample.flatten().tolist()) for sample in logits}) == 6
    plain = Ensemble([network(), network()])
    assert Sampler(plain, 1)(X).shape == (2, 6, 4)


class Stubborn(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return y if y.sum().item() > 0 else -y


def test_a_network_that_cannot_be_vectorised_is_computed_draw_by_draw():
    net = bayesianize(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), LRT(rho_init=WIDE))
    net.append(Stubborn(2, 2))
    x = torch.randn(4, 3)
    sampler = Sampler(net, 5, chunk=100)
    expected = Sampler(net, 5, chunk=1)(x)
    assert expected.shape == (5, 4, 2)
    for _ in range(2):
        torch.testing.assert_close(sampler(x), expected)


def test_large_weights_are_stacked_a_few_at_a_time(monkeypatch):
    net = network(LRT(rho_init=WIDE))
    expected = Sampler(net, 7, chunk=1000)(X)
    monkeypatch.setattr(
        "bnn_lightning.evaluation.sampler._MAX_BYTES_AT_ONCE",
        2 * 4 * sum(part.mean.numel() for _, part in random_tensors(net)),
    )
    sampler = Sampler(net, 7, chunk=1000, kept_bytes=0)
    stacked = []
    original = torch.stack
    monkeypatch.setattr(torch, "stack", lambda parts, *rest: stacked.append(len(parts)) or original(parts, *rest))
    torch.testing.assert_close(sampler(X), expected)
    assert max(stacked) == 2


def test_half_precision_is_near_single_and_double_stays_double():
    net = network(LRT(rho_init=WIDE))
    expected = Sampler(net, 3)(X)
    with torch.autocast("cpu", torch.bfloat16):
        half = Sampler(net, 3)(X)
    # bfloat16 has 8 bits: after two layers logits of this size are off by some of their 2^-8.
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=8 * 2**-8 * expected.abs().max().item())
    assert Sampler(net.double(), 3)(X).dtype == torch.float64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampler(network(), 0), r"^samples must be 1 or more, got 0\.$"),
        (lambda: Sampler(network(), 1, chunk=0), r"^chunk must be 1 or more, got 0\.$"),
        (
            lambda: Sampler(network(), 1, "median"),
            r"^draws must be one of weights, local, mean, moments, got 'median'\.$",
        ),
        (
            lambda: Sampler(network(MCDropout()), 1, "weights"),
            r"^draws must be local, mean or moments for MCDropout, whose noise is not on weights, got weights\.$",
        ),
        (lambda: sample_logits(nn.Linear(1, 1), torch.zeros(1, 1), 0), r"^samples must be 1 or more, got 0\.$"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("draws", [None, "weights", "local", "mean"])
def test_sample_logits_and_sampler_draw_the_same(draws):
    net = network(LRT(rho_init=WIDE))
    before = torch.get_rng_state()
    assert torch.equal(sample_logits(net, X, 5, draws, seed=3), Sampler(net, 5, draws, seed=3)(X))
    assert torch.equal(sample_logits(net, X, 5), Sampler(net, 5)(X))
    assert torch.equal(torch.get_rng_state(), before)


def test_sample_logits_leaves_the_network_as_it_was():
    net = network(BBB(rho_init=WIDE)).train()
    statistics = net[1].running_mean.clone()
    logits = sample_logits(net, X, 5)
    assert logits.shape == (5, 6, 4)
    assert len({tuple(sample.flatten().tolist()) for sample in logits}) == 5
    assert not logits.requires_grad
    assert torch.equal(net[1].running_mean, statistics)
    assert all(module.training for module in net)


class Whole(nn.Module):
    """The same network, which nothing can cut in two."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("draws", ["weights", "local", "mean"])
@pytest.mark.parametrize("chunk", [1, 12, 1000])
@pytest.mark.parametrize("only", ["*", "5"])
@pytest.mark.parametrize("method", [LRT(rho_init=WIDE), BBB(rho_init=WIDE)], ids=repr)
def test_what_all_samples_share_is_computed_once_and_changes_nothing(method, only, chunk, draws):
    net = bayesianize(network(), method, only)
    sampler = Sampler(net, 5, draws, chunk=chunk)
    sampler(X)  # trials of an image or three precede the first batch
    calls = []
    shared, _ = sampler._split_nets[0]
    if only == "5":
        shared[0].register_forward_hook(lambda *_: calls.append(1))
    logits = sampler(X)
    assert len(calls) == len(shared) // 5 == (only == "5")
    # Mean and variance of one image do not depend on the others, but sums are taken in another order in a larger batch.
    torch.testing.assert_close(logits, Sampler(Whole(net), 5, draws, chunk=chunk)(X), rtol=1e-5, atol=1e-6)
