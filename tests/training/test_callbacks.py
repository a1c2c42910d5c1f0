"""Guards: a lost run ends at once, and says of what."""

import math

import pytest
import torch
from torch import nn

from bnn_lightning import LRT, BayesianModule, Sparse
from bnn_lightning.checkpoints.record import Record, read_checkpoint
from bnn_lightning.data import MNIST5k
from bnn_lightning.inference.kl_weights import LinearWarmup
from bnn_lightning.training.callbacks import CollapseGuard, FiniteGuard, TrainingStoppedError
from bnn_lightning.training.saving import Checkpoints
from tests.training.helpers import digits, fit, loaded_digits, module, tiny


class Hundred(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(1024, 100), nn.ReLU(), nn.Linear(100, 10))


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "collapses"), [(1.0, True), (LinearWarmup(start=5, length=15), False)])
def test_collapse_guard_fires_without_the_ramp(weight, collapses):
    # With the full KL from the first step the weights are erased before they have learnt anything.
    torch.manual_seed(0)
    model = module(Hundred(), Sparse(), kl_weight=weight, lr=1e-3)
    data = MNIST5k(image_size=32, train_subset=1000, batch_size=50)
    if collapses:
        with pytest.raises(TrainingStoppedError, match=r"^the weights have collapsed in epoch \d+: .*LinearWarmup"):
            fit(model, data, epochs=8, callbacks=[CollapseGuard()])
    else:
        fit(model, data, epochs=8, callbacks=[CollapseGuard()])
        assert model.summary.score > 0.5


def test_non_finite_loss_stops_the_run_and_names_the_tensor():
    class Explodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x if self.calls < 3 else x / 0

    network = nn.Sequential(nn.MaxPool2d(4), Explodes(), nn.Flatten(), nn.Linear(64, 10))
    model = BayesianModule(network, LRT())
    with pytest.raises(
        TrainingStoppedError, match=r"^the loss is not finite in epoch 1, step 3: the output of 1 is not"
    ):
        fit(model, digits(batch_size=50), callbacks=[FiniteGuard()])
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())  # before the step was taken


def test_a_gradient_that_is_not_finite_is_named_by_its_parameter():
    model = tiny(LRT())
    model.network[2].weight.rho.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(TrainingStoppedError, match=r"step 2: 2\.weight\.rho is not finite, from its gradient"):
        fit(model, digits(batch_size=50), callbacks=[FiniteGuard()])


def test_the_end_of_an_epoch_is_looked_at_before_its_checkpoint_is_written(tmp_path):
    model = tiny(LRT())
    model.network[2].weight.rho.register_hook(lambda gradient: gradient * (math.nan if model.current_epoch else 1))
    guards = [Checkpoints(tmp_path, model.inference), FiniteGuard()]
    with pytest.raises(TrainingStoppedError, match="in epoch 2, step 1"):
        fit(model, digits(batch_size=500), epochs=3, callbacks=guards, enable_checkpointing=True)
    state = read_checkpoint(tmp_path / "last.ckpt")
    assert Record.read(tmp_path / "last.ckpt").epochs_done == 1
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


def test_images_that_are_not_finite_are_named():
    data = loaded_digits()
    data.std = [0.0]
    model = tiny(LRT())
    with pytest.raises(
        TrainingStoppedError,
        match=r"step 1: the images are not finite\..* look for nan or inf in your data: ",
    ):
        fit(model, data, callbacks=[FiniteGuard()])
