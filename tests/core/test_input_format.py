"""Networks that flatten by ``view``, which torch refuses of what convolutions give in channels_last memory."""

import copy

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnn_lightning import BBB, LRT, BayesianModule, Categorical, Flipout, MCDropout, Sampler, bayesianize
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


class Merging(Viewing):
    """Its view merges batch and channels, which one image alone would let pass."""

    def forward(self, x):
        x = self.conv2(self.conv1(x).relu())
        shares = x.view(len(x) * 3, -1).softmax(1).view(len(x), -1)
        return self.fc(shares)


@pytest.mark.parametrize("method", [None, BBB(), LRT()], ids=["deterministic", "BBB", "LRT"])
def test_views_of_several_images_work_too(method):
    net = Merging() if method is None else bayesianize(Merging(), method)
    assert Sampler(net.to(memory_format=torch.channels_last), 5)(torch.randn(6, 1, 8, 8)).shape[1:] == (6, 5)


@pytest.mark.parametrize("method", [None, BBB(), LRT()], ids=["deterministic", "BBB", "LRT"])
def test_a_network_that_was_validated_first_is_trained(method):
    model = BayesianModule(Viewing(), method, likelihood=Categorical())
    before = {name: value.detach().clone() for name, value in model.network.named_parameters()}
    loader = DataLoader(TensorDataset(torch.randn(8, 1, 8, 8), torch.arange(8) % 5), batch_size=4)
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.validate(model, loader, verbose=False)
    trainer.fit(model, loader, loader)
    changed = [name for name, value in model.network.named_parameters() if not torch.equal(value, before[name])]
    assert len(changed) == len(before)


def test_what_a_first_pass_could_not_tell_the_next_one_does():
    net, _ = pair(BBB())
    for x in (torch.randn(4, 2, 8, 8), torch.randn(0, 1, 8, 8)):  # two channels, no images
        assert is_channels_last(in_format_for(net, x))
    assert not is_channels_last(in_format_for(net, torch.randn(4, 1, 8, 8)))
    net.to(memory_format=torch.channels_last)  # somebody changes it since
    x = torch.randn(6, 1, 8, 8)
    assert Sampler(net, 3)(x).shape == (3, 6, 5)
    assert Sampler(BayesianModule(net).network, 3)(x).shape == (3, 6, 5)


def test_moments_behind_plain_convolutions():
    x = torch.randn(6, 1, 8, 8)
    views, flattens = (bayesianize(net, BBB(), "fc") for net in pair(None))
    flattens.load_state_dict(views.state_dict())
    expected = Sampler(flattens, 4, "moments")(x)
    torch.testing.assert_close(Sampler(views, 4, "moments")(x), expected, rtol=1e-4, atol=1e-5)


def test_replicas_are_made_before_the_first_images():
    net = bayesianize(pair(None)[0], BBB(), "fc")
    x = torch.randn(6, 1, 8, 8)
    sampler = Sampler(net, 3)
    replica = sampler.replica()
    assert torch.equal(replica(x), sampler(x))


def test_the_trial_sets_nothing_in_the_network():
    class SetsItself(nn.Module):
        """As layers do that normalise by their first batch."""

        seen = None

        def forward(self, x):
            self.seen = x.shape if self.seen is None else self.seen
            return x

    net = nn.Sequential(SetsItself(), pair(BBB())[0])
    in_format_for(net, torch.randn(7, 1, 8, 8))
    assert net[0].seen is None


def test_other_errors_and_other_inputs_are_left_alone():
    net, rows = nn.Linear(3, 2), torch.randn(4, 3)
    assert in_format_for(net, rows) is rows
    images = torch.randn(4, 2, 5, 5)
    assert is_channels_last(in_format_for(net, images))  # which it cannot take; its own pass says so
