"""Networks made of their parts, and modules made of what a checkpoint holds."""

import copy
import warnings
from typing import TypeVar

import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from torch import nn

from bnn_lightning.core.conversion import load_plain_state_dict
from bnn_lightning.core.methods import Method
from bnn_lightning.core.whole_network import bayesian_layers
from bnn_lightning.evaluation.sampler import Ensemble
from bnn_lightning.inference import Inference
from bnn_lightning.training.checkpoints import CheckpointError, Record

Module = TypeVar("Module", bound=LightningModule)


def build_network(
    network: nn.Module, method: Method | None, inference: Inference, only: str | list[str], members: int, compiles: bool
) -> nn.Module:
    """The network that is trained: made random, in the memory format of convolutions; or an ensemble of such."""
    if members < 1:
        raise ValueError(f"members must be 1 or more, got {members}.")
    prepared = inference.prepare(network, method, only)
    net = prepared if members == 1 else Ensemble([copy.deepcopy(prepared) for _ in range(members)])
    layers = bayesian_layers(net)
    for layer in layers:
        layer.compiles = compiles
    if compiles and not layers:
        warnings.warn("compile has nothing to compile in a deterministic network.", stacklevel=3)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def start_from_twin(net: nn.Module, path: str) -> None:
    """Starts ``net`` from the weights of its deterministic twin in a checkpoint.

    Raises:
        ValueError: when that is no checkpoint, or of another network.
    """
    try:
        load_plain_state_dict(net, Record.read(path).network_state)
    except ValueError as error:
        raise ValueError(f"init_from must be a checkpoint of the deterministic twin, got {path}: {error}") from error


def from_record(cls: type[Module], record: Record) -> Module:
    """The trained module of class ``cls`` in a checkpoint of ``bnn fit``, on the CPU, in eval mode.

    Raises:
        CheckpointError: when it was saved from Python, and does not say what it is made of.
    """
    if record.config is None:
        raise CheckpointError(f"{record.path} was saved from Python and holds no config; use load_from_checkpoint.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "model")
    module = parser.instantiate(parser.parse_object({"model": record.config["model"]})).model
    load_record(module, record)
    return module.eval()


def load_record(module: LightningModule, record: Record) -> None:
    """Puts a checkpoint's weights, and what it says of them, into a module."""
    module.on_load_checkpoint(record.contents)
    module.load_state_dict(record.state_dict)
