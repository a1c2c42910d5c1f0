"""Batches as Lightning's loops have them: hooks of a data module, further parts, and the last, shorter step."""

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from bnn_lightning import BBB, SWAG, BayesianModule, Laplace, Variational
from bnn_lightning.inference.kl_weights import Blundell
from bnn_lightning.training.probe import first_batch
from tests.training.helpers import fit

EXAMPLES, INPUTS = 90, 6


class Rows(LightningDataModule):
    """Rows of numbers, with a third part in each batch."""

    scale = 1

    def __init__(self):
        super().__init__()
        x = torch.randn(EXAMPLES, INPUTS, generator=torch.Generator().manual_seed(0))
        self.x, self.y = self.scale * x, (x[:, 0] > 0).long()

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.y, torch.arange(EXAMPLES)), 10)

    val_dataloader = calibration_dataloader = train_dataloader


class DividedBefore(Rows):
    scale = 128

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return [batch[0] / 128, *batch[1:]]


class DividedAfter(Rows):
    scale = 128

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [batch[0] / 128, *batch[1:]]


def trained(data, inference):
    torch.manual_seed(1)
    network = nn.Sequential(nn.BatchNorm1d(INPUTS), nn.Linear(INPUTS, 2))
    model = BayesianModule(network, inference=inference)
    model.trainer = fit(model, data, epochs=2)
    return model


@pytest.mark.parametrize("divided", [DividedBefore, DividedAfter])
@pytest.mark.parametrize(
    "inference", [Laplace(optimizer=SGD, lr=0.1), SWAG(lr=0.1, collections_per_epoch=4)], ids=["Laplace", "SWAG"]
)
def test_a_posterior_and_a_calibration_are_those_of_batches_after_the_hooks(inference, divided):
    plain, hooked = (trained(data, inference) for data in (Rows(), divided()))
    for name, value in plain.network.state_dict().items():
        torch.testing.assert_close(hooked.network.state_dict()[name], value, msg=name)
    temperatures = [model.calibrated(model.trainer.datamodule)["mean"].temperature for model in (plain, hooked)]
    assert temperatures[1] == pytest.approx(temperatures[0], rel=1e-5)


def test_the_probe_looks_at_a_batch_after_the_hooks():
    batch = first_batch(DividedAfter(), False).batch
    torch.testing.assert_close(batch[0], Rows().x[:10])


class Gradients(Callback):
    def __init__(self):
        self.found = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.found.append(pl_module.network[0].weight.grad.clone())


def test_the_last_step_of_an_epoch_has_the_mean_of_the_batches_that_are_left():
    data, gradients = Rows(), Gradients()
    data.x, data.y = data.x[:10].repeat(9, 1), data.y[:10].repeat(9)  # nine batches, all the same
    torch.manual_seed(1)
    model = BayesianModule(nn.Sequential(nn.Linear(INPUTS, 2)), inference=Variational(optimizer=SGD, lr=1e-300))
    fit(model, data, accumulate_grad_batches=8, callbacks=[gradients])
    first, last = gradients.found
    assert first.abs().max() > 1e-3
    torch.testing.assert_close(last, first)


def test_the_kl_weight_of_an_epoch_is_the_mean_over_its_steps():
    inference = Variational(kl_weight=Blundell())
    model = BayesianModule(nn.Sequential(nn.Linear(INPUTS, 2)), BBB(), inference=inference)
    fit(model, Rows(), accumulate_grad_batches=8)  # 8 batches with the weight 4/3, 1 with 2/3
    assert model.summary.kl_weight == pytest.approx(1)
    assert "tempered" not in model.summary.caveats
