"""Checkpoints: the frozen Record of a file that was read, and how files are written: plain values only, never code."""

import errno
import importlib.util
import io
import re
import sys
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from bnn_lightning.checkpoints.summary import TrainingSummary
from bnn_lightning.checkpoints.upgrade import upgraded_checkpoint
from bnn_lightning.files import atomic_write
from bnn_lightning.shipped import found

KEY = "bnn_lightning"
RESUME = "bnn_lightning_resume"
"""What only a run that goes on needs, for each process: random states, and what the current epoch has added up."""
FORMAT_VERSION = 2


class CheckpointError(ValueError):
    """A file is not a checkpoint that this program can use; the message says which file and why."""


class UnreadableError(CheckpointError):
    """The operating system does not let the file be read, perhaps only now; nothing is known about what it holds."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A whole checkpoint on the CPU, loaded with ``weights_only``, so that nothing in the file can run.

    Raises:
        CheckpointError: when there is no such file, it is damaged, or another program or version wrote it.
        UnreadableError: when it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise nearly anything
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise UnreadableError(f"{path} cannot be read: there is not enough memory.") from error
        # A file that was cut off has torch look before its beginning, which is an invalid argument.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise UnreadableError(f"{path} cannot be read: {error.strerror or error}.") from error
        if "Weights only load failed" in str(error) and _is_pickled(path):
            reason = "it holds Python objects; only files of tensors and plain values are read"
        else:
            reason = "it is damaged, or another kind of file"
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {reason}.") from None
    checkpoint = check_format(checkpoint, path)
    _refuse_functions(checkpoint[KEY].get("config"), path)
    return checkpoint


def _is_pickled(path: Path) -> bool:
    """Whether a file is of torch's format, which is a zip file, or a pickle; anything else looks like broken ones."""
    with path.open("rb") as file:
        first = file.read(1)
        return first == b"\x80" or zipfile.is_zipfile(file)


def _file_in(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.rglob("best.ckpt")) or sorted(folder.rglob("*.ckpt"))
    cure = f"name one, such as {others[0]}" if others else "name the folder of a run, or a file"
    raise CheckpointError(f"there is no best.ckpt or last.ckpt in {folder}; {cure}.")


def check_format(checkpoint: Any, path: str | Path = "the checkpoint") -> dict[str, Any]:
    """``checkpoint`` in today's format.

    Raises:
        CheckpointError: when there is no record under :data:`KEY`, or its format is not one that is known.
    """
    record = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(record, dict) or "format_version" not in record:
        raise CheckpointError(f"{path} was not written by bnn_lightning: it has no {KEY!r} record.")
    if record["format_version"] not in range(1, FORMAT_VERSION + 1):
        raise CheckpointError(
            f"{path} has format version {record['format_version']}, this bnn_lightning reads versions up to "
            f"{FORMAT_VERSION}; use the release that wrote it."
        )
    config = record.get("config")
    parts = [config.get(part) for part in ("model", "data", "trainer")] if isinstance(config, dict) else [None]
    is_whole = all(isinstance(part, dict) for part in parts) and {"seed_everything", "name"} <= set(config or ())
    if config is not None and not is_whole:
        raise CheckpointError(f"{path} holds a config that is not one of bnn fit's.")
    return upgraded_checkpoint(checkpoint) if record["format_version"] < FORMAT_VERSION else checkpoint


@dataclass(frozen=True)
class Record:
    """What a checkpoint of ``bnn fit`` holds, read once.

    Args:
        path: the file.
        contents: all that is in the file.
        state_dict: parameters and buffers of the LightningModule.
        global_step: optimiser steps that it has behind it.
        config: the resolved config of the run; None where it was saved from Python.
        versions: of the libraries that it was trained with.
        code: the file that each class of somebody's own was in; it is shown, and never imported.
        data: how the images were prepared, and what the classes are called; None for a user's own data module.
        training: the summary of the last complete epoch; None before there is one.
        validation: metrics of the last validation.
        validated_at: optimiser steps that it came after; None where there was none, and in files of earlier releases.
        calibration: plain values of the calibration of each way of drawing samples.
    """

    path: Path
    contents: dict[str, Any]
    state_dict: dict[str, Tensor]
    global_step: int
    config: dict[str, Any] | None
    versions: dict[str, str]
    code: dict[str, str]
    data: dict[str, Any] | None
    training: TrainingSummary | None
    validation: dict[str, float]
    calibration: dict[str, dict[str, Any]]
    validated_at: int | None = None

    @classmethod
    def read(cls, path: str | Path, to_go_on: bool = False) -> Self:
        """The record of a file, of a run's folder, or of a checkpoint that comes with the package, by its bare name.

        Args:
            path: of a folder, best.ckpt is read, else last.ckpt.
            to_go_on: whether training goes on: of a folder, last.ckpt is read, else best.ckpt.

        Raises:
            CheckpointError: when there is no such file, it cannot be read, or another program or version wrote it.
        """
        path = Path(found(str(path), "checkpoint"))
        if path.is_dir():
            path = _file_in(path, ("last.ckpt", "best.ckpt") if to_go_on else ("best.ckpt", "last.ckpt"))
        return cls.from_contents(read_checkpoint(path), path)

    @classmethod
    def from_contents(cls, contents: dict[str, Any], path: Path = Path("the checkpoint")) -> Self:
        """The record of what a checkpoint file holds, in today's format.

        Raises:
            CheckpointError: when its summary has a value that is not known here.
        """
        record = contents[KEY]
        training = record.get("training")
        if unknown := sorted(set(training or ()) - {value.name for value in fields(TrainingSummary)}):
            release = (record.get("versions") or {}).get("bnn_lightning", "another release")
            raise CheckpointError(f"{path} holds {', '.join(unknown)}, not known here; use what wrote it, {release}.")
        return cls(
            path=path,
            contents=contents,
            state_dict=contents.get("state_dict", {}),
            global_step=contents.get("global_step", 0),
            config=record.get("config"),
            versions=record.get("versions") or {},
            code=record.get("code") or {},
            data=record.get("data"),
            training=None if training is None else TrainingSummary(**training),
            validation=record.get("validation") or {},
            calibration=record.get("calibration") or {},
            validated_at=record.get("validated_at"),
        )

    @property
    def own_validation(self) -> dict[str, float]:
        """The metrics of these weights; empty where the last validation was of weights before them."""
        return self.validation if self.validated_at in (None, self.global_step) else {}

    @property
    def network_state(self) -> dict[str, Tensor]:
        """The state_dict of the network."""
        return {
            key.removeprefix("network."): value for key, value in self.state_dict.items() if key.startswith("network.")
        }

    @property
    def members(self) -> int:
        """Networks in it: 1, or those of an ensemble."""
        return 1 if self.config is None else self.config["model"].get("members", 1)

    @property
    def can_go_on(self) -> bool:
        """Whether it holds what training needs to go on."""
        return "optimizer_states" in self.contents

    @property
    def epochs_done(self) -> int:
        """Complete epochs of training; one that has begun is not counted."""
        return 0 if self.training is None else self.training.epoch + 1

    def is_finished(self, epochs: int | None = None) -> bool:
        """Whether there is nothing left to do in a run of ``epochs``, by default as many as it was started with.

        A run may have been killed while it was calibrated, which is then all that is left.
        """
        if self.config is None:
            return False
        has_holdout = bool((self.config["data"].get("init_args") or {}).get("val_split"))
        wanted = self.config["trainer"]["max_epochs"] if epochs is None else epochs
        return self.epochs_done >= (wanted or 1) and (bool(self.calibration) or not has_holdout)


def _refuse_functions(config: Any, path: str | Path, keys: tuple[str, ...] = ()) -> None:
    """Raises CheckpointError where the config in a stranger's file names a function, which somebody would call.

    Classes are of the kind that their part asks for, and so is what a function for the network gives; but settings of
    some classes are functions by any name, with arguments if they are given as a class path: Lightning's
    LambdaCallback, a loss's distance. Those of ``torch.nn`` are activations, and harmless. Looking a name up would run
    its module: where that has not run yet, what begins with a capital is taken for a class.
    """
    if isinstance(config, dict):
        for name, inner in config.items():
            _refuse_functions(inner, path, (*keys, name))
    elif isinstance(config, list):
        for inner in config:
            _refuse_functions(inner, path, keys)
    elif isinstance(config, str) and keys != _NETWORK and _TEXTS.isdisjoint(keys[-1:]) and _DOTTED.fullmatch(config):
        module, _, name = config.rpartition(".")
        known = getattr(sys.modules.get(module), name, None)
        is_class = name[0].isupper() if known is None else isinstance(known, type)
        is_harmless = is_class or name in _ENDINGS or config.startswith("torch.nn.")
        if not is_harmless and _is_installed(config.partition(".")[0]):
            raise CheckpointError(f"{path} names the function {config} in its config; checkpoints call none.")


_DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
_NETWORK = ("model", "network", "class_path")
_TEXTS = frozenset(
    (
        *("name", "init_from", "root", "path", "test_path", "labels", "cache", "target", "features", "ood"),
        *("dirpath", "save_dir", "default_root_dir", "filename", "monitor"),
    )
)
_ENDINGS = ("csv", "tsv", "txt", "dat", "parquet", "pq", "json", "yaml", "yml", "ckpt", "pt", "pth", "npy", "npz", "gz")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # __main__ has none
        return True


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
    atomic_write(path, content.getbuffer())


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
