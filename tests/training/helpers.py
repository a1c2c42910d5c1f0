"""A network that trains in a second, and a trainer that says nothing."""

from dataclasses import fields

import torch
from lightning.pytorch import Trainer
from torch import nn

from bnn_lightning import BayesianModule, Sampling, Variational
from bnn_lightning.data import MNIST5k


def digits(**settings):
    return MNIST5k(image_size=32, train_subset=500, **settings)


def fit(model, data=None, epochs=1, **settings):
    torch.manual_seed(0)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **quiet | settings)
    trainer.fit(model, data or digits())
    return trainer


def module(network, method=None, kind=BayesianModule, **settings):
    """A module whose settings of inference and sampling are given by their short names, such as lr."""
    groups = {"inference": Variational, "sampling": Sampling}
    for group, owner in groups.items():
        names = {field.name for field in fields(owner)}
        if own := {name: settings.pop(name) for name in names & settings.keys()}:
            settings[group] = owner(**own)
    return kind(network, method, **settings)


def tiny(method=None, **settings):
    torch.manual_seed(0)
    network = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10))
    return module(network, method, **settings)


def loaded_digits():
    data = digits()
    data.setup("fit")
    return data
