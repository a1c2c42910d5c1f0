"""What our checkpoints hold besides weights, and how it is read and written: plain values only, never code."""

import importlib.util
import io
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnn_lightning.files import write_whole
from bnn_lightning.training.upgrade import upgraded

KEY = "bnn_lightning"
RESUME = "bnn_lightning_resume"
"""What only a run that goes on needs, for each process: random states, and what the current epoch has added up."""
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
    record = check_format(checkpoint, path)
    if "config" in record:
        record["config"] = upgraded(record["config"])
        _refuse_functions(record["config"], path)
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
    config = record.get("config")
    parts = [config.get(part) for part in ("model", "data", "trainer")] if isinstance(config, dict) else [None]
    is_whole = all(isinstance(part, dict) for part in parts) and {"seed_everything", "name"} <= set(config or ())
    if config is not None and not is_whole:
        raise CheckpointError(f"{path} holds a config that is not one of bnn fit's.")
    return record


def _refuse_functions(config: Any, path: str | Path, key: str = "") -> None:
    """Raises CheckpointError where the config in a stranger's file names a function, which somebody would call.

    Class paths are of the kind that their part asks for, and name what is installed; but settings of some classes, such
    as Lightning's LambdaCallback, are functions by any name. Those of ``torch.nn`` are activations, and harmless.
    Looking a name up would run its module: what begins with a capital is taken for a class.
    """
    if isinstance(config, dict):
        for name, inner in config.items():
            _refuse_functions(inner, path, name)
    elif isinstance(config, list):
        for inner in config:
            _refuse_functions(inner, path, key)
    elif isinstance(config, str) and key not in _TEXTS and _DOTTED.fullmatch(config):
        module, _, name = config.rpartition(".")
        is_class = name[0].isupper() or isinstance(getattr(sys.modules.get(module), name, None), type)
        if not is_class and not config.startswith("torch.nn.") and _is_installed(config.partition(".")[0]):
            raise CheckpointError(f"{path} names the function {config} in its config; checkpoints call none.")


_DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
_TEXTS = ("class_path", "name", "init_from", "root", "dirpath", "default_root_dir", "filename", "monitor")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # __main__ has none
        return True


def epochs_done(checkpoint: Mapping[str, Any]) -> int:
    """How many epochs of training a checkpoint has behind it; one that has begun is not counted."""
    training = checkpoint[KEY]["training"]
    return 0 if training is None else training["epoch"] + 1


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Puts ``checkpoint`` in the place of the file ``path`` at once: until it is whole, the old file stays.

    Raises:
        CheckpointError: when it holds something that could not be read again: objects, a function in its config.
        UnwritableError: when there is no room, or no right to write.
    """
    refuse_objects(checkpoint)
    if isinstance(record := checkpoint.get(KEY), dict):
        _refuse_functions(record.get("config"), path)
    content = io.BytesIO()  # an error of the disk is then the operating system's own, and not one of torch's archives
    torch.save(checkpoint, content)
    write_whole(path, content.getbuffer())


def refuse_objects(value: Any, where: str = "") -> None:
    """Raises CheckpointError, naming the place, where ``value`` holds what ``weights_only`` would refuse to read."""
    if type(value) in (dict, OrderedDict):
        for key, inner in value.items():
            refuse_objects(key, f"{where}[{key!r}] as a key")
            refuse_objects(inner, f"{where}[{key!r}]")
    elif type(value) in (list, tuple, set, torch.Size):
        for index, inner in enumerate(value):
            refuse_objects(inner, f"{where}[{index}]")
    elif type(value) not in _PLAIN:
        raise CheckpointError(
            f"the checkpoint holds {type(value).__module__}.{type(value).__qualname__} at {where}, no tensor or "
            "plain value, and could not be read again; keep settings as numbers and texts."
        )


_PLAIN = (bool, int, float, complex, str, bytes, type(None), Tensor, torch.nn.Parameter, torch.dtype, torch.device)


def without_training_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The part that testing and predicting need: weights and record, without optimiser, loops and callbacks."""
    return {key: checkpoint[key] for key in ("state_dict", "pytorch-lightning_version", "epoch", "global_step", KEY)}
