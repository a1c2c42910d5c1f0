"""The learner of a loop: the likelihood's training loss, rates by the step, and batches of equal size."""

import pytest
import torch

from bnn_lightning import LRT, SWAG, BayesianModule, Categorical, LeNet300100, Variational
from bnn_lightning.data import MNIST5k
from bnn_lightning.simulation.learner import Learner

STEPS = 20


@pytest.fixture(scope="module")
def data():
    source = MNIST5k(batch_size=4, val_split=0)
    source.setup("fit")
    return source


def learnt(data, inference, method=None, likelihood=None, images=8):
    def make():
        return BayesianModule(LeNet300100(), method=method, inference=inference, likelihood=likelihood or Categorical())

    learner = Learner(make, 1, data, STEPS, 0, False)
    learner.fit(data.train[torch.arange(images)], 0)
    return learner.modules[0].network


def test_rates_follow_the_steps_where_the_inference_says_so(data):
    seen = []

    class Watched(SWAG):
        def start(self, optimizer, steps):
            super().start(optimizer, steps)
            optimizer.register_step_pre_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))

    inference = Watched(rank=2)
    learnt(data, inference)
    assert seen == pytest.approx([inference.rate(step, STEPS) for step in range(STEPS)])
    assert seen[0] == pytest.approx(5 * seen[-1])


def test_the_loss_is_that_of_training(data):
    weights = [
        torch.cat([value.flatten() for value in learnt(data, Variational(lr=0.01), LRT(), likelihood).parameters()])
        for likelihood in (Categorical(), Categorical(), Categorical(label_smoothing=0.5))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


@pytest.mark.parametrize(("images", "sizes"), [(3, {3}), (4, {4}), (5, {2, 3}), (9, {3}), (11, {3, 4})])
def test_batches_are_of_equal_size_as_far_as_their_number_allows(data, images, sizes):
    seen = []

    class Watched(Variational):
        def loss(self, net, x, *rest):
            seen.append(len(x))
            return super().loss(net, x, *rest)

    learnt(data, Watched(lr=0.01), images=images)
    assert set(seen) == sizes
    assert len(seen) >= STEPS
