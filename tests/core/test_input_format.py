"""Networks that flatten by ``view``, which torch refuses of what convolutions give in channels_last memory."""

import copy

import pytest
import torch
from torch import nn

from bnn_lightning import BBB, LRT, Flipout, MCDropout, Sampler, bayesianize
from bnn_lightning.core.input_format import in_format_for
from bnn_lightning.core.kernels.memory import is_channels_last


class Viewing(nn.Module):
    """Two convolutions, whose outputs are flattened by ``view`` or by ``flatten``."""

    def __init__(self, views=True):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3), nn.Linear(48, 5)
        self.views = views

    def forward(self, x):
        x = self.conv2(self.conv1(x).relu()).relu()
        return self.fc(x.view(-1, 48) if self.views else x.flatten(1))


def pair(method):
    """The same network with ``view`` and with ``flatten``, weights in channels_last memory as training has them."""
    torch.manual_seed(0)
    nets = [Viewing(views) for views in (True, False)]
    nets[1].load_state_dict(nets[0].state_dict())
    nets = [net if method is None else bayesianize(net, method) for net in nets]
    nets[1].load_state_dict(nets[0].state_dict())
    return [net.to(memory_format=torch.channels_last) for net in nets]


CASES = [
    *((method, draws) for method in (BBB(), LRT(), Flipout()) for draws in ("weights", "local", "mean", "moments")),
    *((MCDropout(), "local"), (MCDropout(), "mean"), (None, "mean")),
]


@pytest.mark.parametrize(("method", "draws"), CASES, ids=lambda each: str(each).partition("(")[0])
@pytest.mark.parametrize("chunk", [1, 256])
def test_a_network_that_views_predicts_what_one_that_flattens_does(method, draws, chunk):
    x = torch.randn(6, 1, 8, 8)
    views, flattens = (Sampler(net, 200, draws=draws, chunk=chunk)(x) for net in pair(method))
    if draws in ("mean", "moments"):
        torch.testing.assert_close(views, flattens, rtol=1e-4, atol=1e-5)
    else:  # noise is drawn in the order of memory: another draw of the same law
        spread = (views.var(0) / len(views) + flattens.var(0) / len(flattens)).sqrt()
        assert ((views.mean(0) - flattens.mean(0)).abs() < 5 * spread + 1e-6).all()


def test_the_trial_changes_no_noise_and_keeps_the_mode():
    net, _ = pair(BBB())
    net.train()
    x, state = torch.randn(6, 1, 8, 8), torch.get_rng_state()
    weights = copy.deepcopy(net.state_dict())
    assert not is_channels_last(in_format_for(net, x))
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, weights[name])
    net(in_format_for(net, x)).sum().backward()
    assert is_channels_last(in_format_for(pair(BBB())[1], x))


def test_other_errors_and_other_inputs_are_left_alone():
    net, rows = nn.Linear(3, 2), torch.randn(4, 3)
    assert in_format_for(net, rows) is rows
    images = torch.randn(4, 2, 5, 5)
    assert is_channels_last(in_format_for(net, images))  # which it cannot take; its own pass says so
