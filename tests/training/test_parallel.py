"""Several processes on the CPU (gloo), several batches to a step, and half precision: the same objective."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from bnn_lightning import (
    BBB,
    IVON,
    LRT,
    SWAG,
    BayesianModule,
    Categorical,
    Flipout,
    GaussianLikelihood,
    HierarchicalA,
    Laplace,
    Sparse,
    Variational,
    random_tensors,
    sampling,
)
from bnn_lightning.checkpoints.record import KEY, RESUME, read_checkpoint
from bnn_lightning.data import MNIST5k, RotatedDigits
from bnn_lightning.training.saving import AtomicCheckpointIO, Checkpoints
from tests.helpers import ROOT

LENET = str(ROOT / "configs" / "lenet_lrt.yaml")
SMALL = ["--data", "MNIST5k", "--data.train_subset", "600", "--trainer.max_epochs", "1"]
METHODS = [BBB(), LRT(), Flipout(), Sparse(), HierarchicalA()]

# Lightning's advice on its own data loaders, which are not used here, and on fork after threads.
pytestmark = pytest.mark.filterwarnings("ignore")


class MeanWeights(Variational):
    """Trains without noise, in steps too short to change a number: the gradients of every step can be compared."""

    def loss(self, net, *arguments):
        with sampling(net, False):
            return super().loss(net, *arguments)


class Gradients(Callback):
    """Keeps what each step of the optimiser is given, and a random number of each process."""

    def __init__(self, folder):
        self.folder, self.steps = folder, []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})

    def on_train_end(self, trainer, pl_module):
        torch.save(self.steps, self.folder / f"steps_{trainer.global_rank}.pt")
        torch.save(torch.randn(4), self.folder / f"noise_{trainer.global_rank}.pt")
        summary = pl_module.summary
        torch.save([summary.nll, summary.num_train], self.folder / f"summary_{trainer.global_rank}.pt")


def network(outputs=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.MaxPool2d(4), nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, outputs))


def quiet_trainer(devices, **settings):
    """A trainer for an epoch in float64 that writes nothing."""
    return Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_spawn" if devices > 1 else "auto",
        precision="64-true",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


def steps_of(folder, method, batch_size, devices=1, **settings):
    """The gradients of each step of an epoch over 400 images, in float64 and with mean weights."""
    folder.mkdir()
    torch.manual_seed(7)
    trainer = quiet_trainer(devices, callbacks=[Gradients(folder)], **settings)
    model = BayesianModule(network(), method, MeanWeights(1e-30, SGD, kl_weight=0.5))
    trainer.fit(model, MNIST5k(image_size=32, train_subset=500, batch_size=batch_size))
    return [torch.load(folder / f"steps_{rank}.pt") for rank in range(devices)]


def assert_same_steps(expected_steps, actual_steps):
    assert len(expected_steps) == len(actual_steps) > 1
    for expected, actual in zip(expected_steps, actual_steps, strict=True):
        assert expected.keys() == actual.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient, rtol=1e-6, atol=1e-12, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS[1:3], ids=lambda method: type(method).__name__)
def test_two_processes_give_the_gradients_of_one_on_the_joined_batch(tmp_path, method):
    # By Lightning's Trainer, step for step: N is global, the KL unscaled, and the loader shares an epoch out.
    (alone,) = steps_of(tmp_path / "one", method, 80)
    ranks = steps_of(tmp_path / "two", method, 40, devices=2)
    for rank in ranks:
        assert_same_steps(alone, rank)
    noise = [torch.load(tmp_path / "two" / f"noise_{rank}.pt") for rank in (0, 1)]
    assert not torch.equal(*noise)
    nll, count = torch.load(tmp_path / "one" / "summary_0.pt")
    for rank in (0, 1):
        assert torch.load(tmp_path / "two" / f"summary_{rank}.pt") == [pytest.approx(nll, rel=1e-6), count]


class SameNoise(IVON):
    """IVON whose noise is a function of the step alone: the same in all processes."""

    def loss(self, net, x, y, likelihood, step):
        with torch.random.fork_rng():
            torch.manual_seed(step.step)
            return super().loss(net, x, y, likelihood, step)


def trained_by_one_and_two(method, inference, likelihood=None, images=MNIST5k):
    """Networks after an epoch of one process, and of two with batches of half the size, in float64."""
    trained = []
    for devices in (1, 2):
        torch.manual_seed(7)
        trainer = quiet_trainer(devices)
        model = BayesianModule(network(10 if likelihood is None else 1), method, inference, likelihood or Categorical())
        trainer.fit(model, images(image_size=32, train_subset=500, batch_size=80 // devices))
        trained.append(model.network)
    return trained


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inference", "of"),
    [
        (Laplace(), ()),
        (Laplace(structure="kron"), ()),
        (SWAG(collect_after=0.2, rank=2, collections_per_epoch=5), ()),
        (Laplace(), (GaussianLikelihood(), RotatedDigits)),
    ],
    ids=["Laplace", "Laplace, kron", "SWAG", "Laplace, numbers"],
)
def test_two_processes_form_the_posterior_of_one(inference, of):
    alone, together = map(random_tensors, trained_by_one_and_two(None, inference, *of))
    for (_, expected), (_, found) in zip(alone, together, strict=True):
        for value in ("mean", "variance"):
            torch.testing.assert_close(
                getattr(found, value).double(), getattr(expected, value).double(), rtol=1e-5, atol=1e-9
            )


class OwnData(LightningDataModule):
    """Somebody's own, whose loader Lightning divides among the processes."""

    def train_dataloader(self):
        x = torch.linspace(-1, 1, 400 * 64, dtype=torch.float64).view(400, 1, 8, 8)
        return DataLoader(TensorDataset(x, torch.arange(400) % 3), batch_size=40, shuffle=True)


@pytest.mark.slow
def test_two_processes_count_each_example_of_ones_own_data_once():
    variances = []
    for devices in (1, 2):
        torch.manual_seed(7)
        # Steps that change nothing, so that both have the curvature of the same weights.
        inference = Laplace(optimizer=SGD, lr=1e-300, structure="diag", prior_precision=1e-6)
        model = BayesianModule(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), inference=inference)
        quiet_trainer(devices).fit(model, datamodule=OwnData())
        variances.append(model.network[1].weight.variance.double())
    torch.testing.assert_close(variances[1], variances[0], rtol=1e-5, atol=0)


@pytest.mark.slow
def test_two_processes_take_the_natural_gradient_steps_of_one():
    before = BayesianModule(network(), BBB(), SameNoise(lr=1.0)).network.state_dict()
    found = [net.state_dict() for net in trained_by_one_and_two(BBB(), SameNoise(lr=1.0))]
    for key, value in found[0].items():
        # Weights of several processes come back in float32.
        torch.testing.assert_close(found[1][key].to(value.dtype), value, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(before["1.weight.mu"].double(), found[0]["1.weight.mu"].double(), rtol=1e-3)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_four_batches_to_a_step_give_the_gradients_of_one_of_their_size(tmp_path, method):
    # The KL counts once for a step, not once for each batch that it is made of.
    (alone,) = steps_of(tmp_path / "one", method, 80)
    (in_parts,) = steps_of(tmp_path / "four", method, 20, accumulate_grad_batches=4)
    assert_same_steps(alone, in_parts)


def test_processes_draw_noise_of_their_own():
    # Equal noise in all processes would make a step of two batches no better than a step of one.
    draws = []
    for rank in (0, 1):
        model = BayesianModule(network(), BBB())
        model.trainer = SimpleNamespace(
            world_size=2,
            global_rank=rank,
            lr_scheduler_configs=[],
            optimizers=[None],
            num_training_batches=1,
            accumulate_grad_batches=1,
            max_epochs=1,
            global_step=0,
            ckpt_path=None,
        )
        torch.manual_seed(7)  # what seed_everything does on every process
        model.on_train_start()
        draws.append(torch.randn(4))
    assert not torch.equal(*draws)


class DiesError(Exception):
    pass


class Dies(BayesianModule):
    at_step = 7

    def training_step(self, batch, batch_idx):
        if self.global_step == self.at_step:
            raise DiesError
        return super().training_step(batch, batch_idx)


def trained(folder, kind, ckpt_path=None):
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        max_epochs=2,
        callbacks=[Checkpoints(folder, Variational(), every_n_steps=2)],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data = MNIST5k(image_size=32, train_subset=500, batch_size=40, crop_padding=2)
    torch.manual_seed(7)
    trainer.fit(kind(network(), LRT()), data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return read_checkpoint(folder / "last.ckpt")


@pytest.mark.slow
def test_two_processes_go_on_where_they_were_killed(tmp_path):
    alone = trained(tmp_path / "alone", BayesianModule)
    with pytest.raises(Exception, match="DiesError"):
        trained(tmp_path / "killed", Dies)
    last = tmp_path / "killed" / "last.ckpt"
    assert read_checkpoint(last)["global_step"] == 6
    resumed = trained(tmp_path / "killed", BayesianModule, str(last))
    for name, value in alone["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    expected, actual = ([part["random"]["torch"] for part in checkpoint[RESUME]] for checkpoint in (alone, resumed))
    assert len(expected) == len(actual) == 2
    assert not torch.equal(*expected)
    assert all(map(torch.equal, expected, actual))
    assert alone[KEY]["training"] == resumed[KEY]["training"]


def bnn(*words):
    result = subprocess.run([sys.executable, "-m", "bnn_lightning", *words], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_two_processes_on_the_command_line_count_every_image_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lightning_logs/lenet_lrt_mnist5k/version_0").mkdir(parents=True)  # the run is not the first of its name
    bnn("fit", "--config", LENET, *SMALL, "--trainer.devices", "2")
    assert sorted(path.name for path in Path("lightning_logs/lenet_lrt_mnist5k").iterdir()) == [
        "version_0",
        "version_1",
    ]
    for name in ("best", "last"):
        record = read_checkpoint(f"checkpoints/lenet_lrt_mnist5k/version_1/{name}.ckpt")[KEY]
        assert record["training"]["num_train"] == 480
        assert len(record["calibration"]["weights"]["correct"]) == 60
    last = "checkpoints/lenet_lrt_mnist5k/version_1/last.ckpt"
    two_devices = ["--trainer.devices", "2", "--data.eval_batch_size", "7"]
    assert bnn("validate", "--ckpt_path", last, *two_devices).count("MNIST5k, 60 images:") == 1
    results = []
    for words in (two_devices, []):
        out = bnn("test", "--ckpt_path", last, *words)
        assert out.count("MNIST5k, 1,000 images:") == 1
        path = max(
            Path("lightning_logs/lenet_lrt_mnist5k/version_1").glob("test_*.json"),
            key=lambda path: path.stat().st_mtime,
        )
        results.append(json.loads(path.read_text()))
    # Weight draws are the same functions of an image, whichever process has it, in whatever batch.
    for prediction, row in results[0]["predictions"].items():
        assert row == pytest.approx(results[1]["predictions"][prediction], rel=1e-4, abs=1e-5), prediction
