"""What our checkpoints hold besides weights, and how it is read: plain values only, never code."""

import os
from pathlib import Path
from typing import Any

import torch

KEY = "bnn_lightning"
FORMAT_VERSION = 1


class CheckpointError(ValueError):
    """A file is not a checkpoint that this program can use; the message says which file and why."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A whole checkpoint on the CPU, loaded with ``weights_only``, so that nothing in the file can run.

    Raises:
        CheckpointError: when there is no such file, it cannot be read, or another program or version wrote it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise nearly anything
        reason = "it holds Python objects" if "Weights only load failed" in str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({reason}); only files of tensors and plain values are read."
        ) from None
    check_format(checkpoint, path)
    return checkpoint


def check_format(checkpoint: Any, path: str | Path = "the checkpoint") -> dict[str, Any]:
    """The record of ``checkpoint`` (what is under :data:`KEY`).

    Raises:
        CheckpointError: when there is none, or its format version is not ours.
    """
    record = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(record, dict) or "format_version" not in record:
        raise CheckpointError(f"{path} was not written by bnn_lightning: it has no {KEY!r} record.")
    if record["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {record['format_version']}, this bnn_lightning reads version {FORMAT_VERSION}; "
            "use the release that wrote it."
        )
    return record


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Puts ``checkpoint`` in the place of the file ``path`` at once: until it is whole, the old file stays."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(checkpoint, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def without_training_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The part that testing and predicting need: weights and record, without optimiser, loops and callbacks."""
    return {key: checkpoint[key] for key in ("state_dict", "pytorch-lightning_version", "epoch", "global_step", KEY)}
