"""Masks of the dropout methods at a fixed rate: what they drop, for whom, and how weights are drawn."""

import pytest
import torch
from torch import nn

from bnn_lightning.core.conversion import bayesianize, to_plain
from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods import GaussianS, MCDropout
from bnn_lightning.core.methods.dropout import channel_noise
from bnn_lightning.core.whole_network import draw
from bnn_lightning.evaluation.draws import draws_of
from bnn_lightning.evaluation.sampler import Sampler

F64 = torch.float64


def identity_conv(channels):
    """A convolution that gives its input, so that its output is the input times the mask."""
    layer = nn.Conv2d(channels, channels, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(channels)[..., None, None])
    return layer


@pytest.mark.parametrize("kind", [MCDropout, GaussianS])
def test_a_channel_mask_is_constant_over_space_and_another_for_each_example(kind):
    z = BayesianLayer(identity_conv(8), kind(mask="channel"))(torch.ones(6, 8, 5, 5))
    assert torch.equal(z, z[:, :, :1, :1].expand_as(z))
    masks = z[:, :, 0, 0]
    assert len(masks.unique(dim=0)) > 3
    if kind is MCDropout:
        assert set(masks.unique().tolist()) == {0.0, 2.0}
    by_element = BayesianLayer(identity_conv(8), kind())(torch.ones(6, 8, 5, 5))
    assert not torch.equal(by_element, by_element[:, :, :1, :1].expand_as(by_element))


def test_a_channel_mask_behind_a_flatten_is_that_of_a_convolution_before_it():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 2))
    layer = bayesianize(net, MCDropout(mask="channel"))[2]
    z = channel_noise(layer.op, torch.ones(50, 36), layer.weight).view(50, 4, 9)
    assert torch.equal(z, z[..., :1].expand_as(z))
    assert len(z[..., 0].unique(dim=0)) > 8
    # Tokens of a sequence have the mask of their example.
    tokens = BayesianLayer(nn.Linear(6, 2), MCDropout(mask="channel"))
    assert channel_noise(tokens.op, torch.ones(5, 7, 6), tokens.weight).shape == (5, 1, 6)


def test_channels_are_dropped_at_the_rate_of_torchs_dropout2d():
    torch.manual_seed(0)
    count, p = 20_000, 0.3
    ours = BayesianLayer(identity_conv(2), MCDropout(p=p, mask="channel"))(torch.ones(count, 2, 2, 2))
    theirs = nn.Dropout2d(p)(torch.ones(count, 2, 2, 2))
    for z in (ours, theirs):
        dropped = (z[:, :, 0, 0] == 0).double()
        assert dropped.mean().item() == pytest.approx(p, abs=5 * (p * (1 - p) / (2 * count)) ** 0.5)
        assert z.detach().unique().tolist() == pytest.approx([0, 1 / 0.7])
        assert dropped.T.cov()[0, 1].abs() < 5 * p * (1 - p) / count**0.5


@pytest.mark.parametrize("mask", ["element", "channel"])
@pytest.mark.parametrize("kind", [MCDropout, GaussianS])
def test_a_shared_mask_is_equal_for_all_images(kind, mask):
    net = bayesianize(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)), kind(0.3, mask, True)
    )
    y = net(torch.randn(1, 3, 4, 4).expand(6, 3, 4, 4))
    torch.testing.assert_close(y, y[:1].expand_as(y))
    assert len(torch.cat([net(torch.ones(1, 3, 4, 4)) for _ in range(20)]).unique(dim=0)) > 10  # each pass has its own
    separate = bayesianize(to_plain(net), kind(0.3, mask))
    y = separate(torch.randn(1, 3, 4, 4).expand(6, 3, 4, 4))
    assert len(y.unique(dim=0)) == 6


@pytest.mark.parametrize(
    "method", [MCDropout(0.3, "element", True), MCDropout(0.3, "channel", True), GaussianS(0.3, "channel", True)]
)
def test_weight_draws_are_the_forward_pass_of_a_shared_mask(method):
    # Mean and variance of the outputs of a network with a nonlinearity, by both kinds of draws.
    net = bayesianize(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).to(F64), method)
    x, plain, count = torch.randn(1, 2, 4, 4, dtype=F64), to_plain(net), 40_000
    with torch.no_grad():
        local = torch.vmap(lambda _: net(x)[0], randomness="different")(torch.zeros(count))
        drawn = torch.vmap(lambda _: torch.func.functional_call(plain, draw(net), (x,))[0], randomness="different")(
            torch.zeros(count)
        )
    error = ((local.var(0) + drawn.var(0)) / count).sqrt()
    assert ((local.mean(0) - drawn.mean(0)).abs() < 5 * error).all()
    squares = [(y - y.mean(0)).square() for y in (local, drawn)]
    error = ((squares[0].var(0) + squares[1].var(0)) / count).sqrt()
    assert ((squares[0].mean(0) - squares[1].mean(0)).abs() < 5 * error).all()


def test_every_image_of_a_pool_is_seen_with_the_same_masks():
    net = bayesianize(nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 3)), MCDropout(shared=True))
    assert draws_of(net) == "weights"
    sampler, x = Sampler(net, 7), torch.randn(10, 1, 3, 3)
    torch.testing.assert_close(sampler(x), torch.cat([sampler(image[None]) for image in x], 1))
    with pytest.raises(
        ValueError, match=r"^draws must be local, mean or moments for MCDropout, whose noise is not on weights"
    ):
        draws_of(bayesianize(to_plain(net), MCDropout()), "weights")


def test_an_unknown_mask_is_refused():
    with pytest.raises(ValueError, match=r"^mask must be one of element, channel, got 'pixel'\.$"):
        MCDropout(mask="pixel")
