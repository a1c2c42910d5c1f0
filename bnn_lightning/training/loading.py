"""A module made of what a checkpoint holds."""

from typing import TypeVar

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

from bnn_lightning.training.checkpoints import CheckpointError, Record

Module = TypeVar("Module", bound=LightningModule)


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
