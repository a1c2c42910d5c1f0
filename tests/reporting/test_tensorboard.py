"""TensorBoard's pages beside the curves."""

import pytest
import torch

from bnn_lightning.core.conversion import bayesianize
from bnn_lightning.core.methods import LRT
from bnn_lightning.reporting.tensorboard import Board, PosteriorBoard, hyper_parameters


def test_hyper_parameters_are_what_trains_a_network():
    config = {
        "seed_everything": 3,
        "model": {
            "network": {"class_path": "bnn_lightning.networks.study_nets.LeNet", "init_args": {"num_classes": 10}},
            "method": {"class_path": "LRT", "init_args": {"prior_sigma": 0.1, "rho_init": [-5.0, 0.1], "prior": None}},
            "inference": {"class_path": "bnn_lightning.Variational", "init_args": {"lr": 0.001}},
            "sampling": {"draws": "mean"},
        },
        "data": {"class_path": "MNIST", "init_args": {"root": "somewhere", "batch_size": 256, "seed": 0}},
        "trainer": {"max_epochs": 20, "precision": None},
    }
    assert hyper_parameters(config) == {
        "seed": 3,
        "network": "LeNet",
        "network.num_classes": 10,
        "method": "LRT",
        "method.prior_sigma": 0.1,
        "method.rho_init": "[-5.0, 0.1]",
        "inference": "Variational",
        "inference.lr": 0.001,
        "data": "MNIST",
        "root": "somewhere",
        "batch_size": 256,
        "data seed": 0,
        "epochs": 20,
    }


class _Recorded:
    """Stands for a SummaryWriter."""

    def __init__(self):
        self.histograms = {}
        self.figures = 0

    def add_histogram(self, name, values, step):
        self.histograms[name] = len(values)

    def add_figure(self, *_):
        self.figures += 1


def test_histograms_of_a_large_network_are_bounded(tmp_path, monkeypatch):
    layers = [torch.nn.Linear(4, 4) for _ in range(20)]
    network = bayesianize(torch.nn.Sequential(torch.nn.Linear(1000, 250), *layers), LRT())
    recorded = _Recorded()
    board = Board(tmp_path)
    monkeypatch.setattr(Board, "experiment", recorded)
    trainer = type("Trainer", (), {"current_epoch": 0, "max_epochs": 1, "global_step": 1, "loggers": [board]})
    PosteriorBoard().on_train_epoch_end(trainer, type("Module", (), {"network": network}))
    shown = [name.removeprefix("sigma/") for name in recorded.histograms if name.startswith("sigma/")]
    assert len(shown) == 16  # of 42
    assert {"0.weight", "20.bias"} <= set(shown)
    assert recorded.histograms["sigma/0.weight"] == -(-250_000 // 3)  # every third element
    assert recorded.histograms["sigma/20.bias"] == 4


@pytest.mark.parametrize(("epochs", "expected"), [(-1, 80), (7, 2), (60, 12), (400, 20)])
def test_a_long_run_has_twenty_pictures_of_its_posterior(tmp_path, monkeypatch, epochs, expected):
    network = bayesianize(torch.nn.Sequential(torch.nn.Linear(4, 2)), LRT())
    recorded = _Recorded()
    board = Board(tmp_path)
    monkeypatch.setattr(Board, "experiment", recorded)
    for epoch in range(epochs if epochs > 0 else 400):
        trainer = type(
            "Trainer", (), {"current_epoch": epoch, "max_epochs": epochs, "global_step": 1, "loggers": [board]}
        )
        PosteriorBoard().on_train_epoch_end(trainer, type("Module", (), {"network": network}))
    assert recorded.figures == expected
