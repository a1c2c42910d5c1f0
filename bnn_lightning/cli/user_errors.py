"""Exceptions about what was asked for, turned into one sentence that names the flag."""

import errno
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning
import torch
from jsonargparse import Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import bnn_lightning
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.data import DataNotFoundError
from bnn_lightning.files import UnwritableError
from bnn_lightning.training.callbacks import TrainingStoppedError
from bnn_lightning.training.probe import is_raised_in_own_code, where_raised
from bnn_lightning.wording import hint, nearest

_LIGHTNING = Path(lightning.__file__).parent
_OPTIMIZERS = Path(torch.optim.__file__).parent

_SENTENCES = {
    r"^Target (-?\d+) is out of bounds": "labels must be numbers of the network's outputs, which begin at 0, got {} in "
    "a training batch.",
    # Lightning's issue 17991
    r"can be passed to its parent's `batch_size=": "predict_dataloader must give its loader the batch_size by name, "
    "DataLoader(data, batch_size=64), because Lightning makes it anew for predict, got it by position.",
    r"^No supported gpu backend found": "--trainer.accelerator must be one that this machine and its torch have, got "
    "gpu, of which there is none; leave it out, or give cpu.",
    r"^`Trainer\(devices='?(.*?)'?\)` value is not a valid input": "--trainer.devices must be how many devices to use, "
    "at least 1, or their numbers, got {}.",
    r"invalid accelerator name: `accelerator='(.*?)'`. Available names are: ([\w, ]+)": "--trainer.accelerator must be "
    "one of {1}, got {0}.",
    r"invalid strategy name: `strategy='(.*?)'`": "--trainer.strategy must be auto or the name of one of Lightning's "
    "strategies, such as ddp or fsdp, got {}.",
    r"`val_check_interval` \((\d+)\) must be less than or equal to the number of the training batches \((\d+)\)": (
        "--trainer.val_check_interval must be a share of an epoch such as 0.5, or at most the {1} batches that an "
        "epoch has, got {0}."
    ),
    r"invalid value (\S+) for val_check_interval": "--trainer.val_check_interval must be a share of an epoch from 0 to "
    "1, or a number of batches, got {}.",
}


@contextmanager
def user_errors(config: Namespace) -> Iterator[None]:
    """Turns exceptions about what ``config`` asks for into a UsageError that names the flag."""
    try:
        yield
    except TrainingStoppedError as error:
        raise UsageError(str(error)) from error
    except Exception as error:
        if sentence := _sentence_about(error, config):
            raise UsageError(sentence) from error
        raise


@contextmanager
def errors_of_own_code() -> Iterator[None]:
    """Turns what a user's own module raises, while it is imported too, into a UsageError that names file and line."""
    try:
        yield
    except Exception as error:
        if is_raised_in_own_code(error):
            raise UsageError(f"{where_raised(error)}. --debug shows the traceback.") from error
        raise


def _sentence_about(error: Exception, config: Namespace) -> str | None:
    message = str(error)
    if isinstance(error, RuntimeError) and message.startswith("Error(s) in loading state_dict"):
        return (
            "--ckpt_path does not fit the network that its config names: the network's code has changed since, or the "
            "file is damaged or of another release."
        )
    if sentence := _about_a_package(message, config) or _about_a_metric(message) or known_sentence(message):
        return sentence
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        return f"{os.fsdecode(error.filename or 'a file')} cannot be written: {error.strerror}."
    # A method's settings are checked inside jsonargparse, which wraps what they raise.
    wrapped = re.search(r"- (\w+ must .*)", message) if isinstance(error, ValueError) else None
    if wrapped is None and not _is_about_the_command(error):
        return None
    return _with_flag(wrapped[1] if wrapped else " ".join(message.split()), config)


def _about_a_package(message: str, config: Namespace) -> str | None:
    """What Lightning says of a logger or callback whose package is not there."""
    missing = re.search(r"Requirement '([\w-]+)([^']*)' not met", message)
    if missing is None:
        return None
    owner = re.search(r"class_path '[\w.]*?(\w+)'|^`(\w+)`", message, re.MULTILINE)
    name = (owner[1] or owner[2]) if owner else "this"
    keys = [key for key in config.keys(branches=True) if str(config[key]).endswith(f".{name}")]
    flag = f"--{keys[0].replace('.init_args', '').removesuffix('.class_path')} " if keys else ""
    return f"{flag}{name} needs {missing[1]}, which is not installed: pip install '{missing[1]}{missing[2]}'."


def _about_a_metric(message: str) -> str | None:
    """What Lightning's callbacks say of a metric that is not logged."""
    asked = re.match(r"Early stopping conditioned on metric `([^`]+)`|`ModelCheckpoint\(monitor='([^']+)'\)", message)
    if asked is None:
        return None
    name = asked[1] or asked[2]
    known = [each for each in re.findall(r"[`']([\w/]+)[`']", message) if "/" in each and each != name]
    known = list(dict.fromkeys(known))
    return f"--trainer.callbacks.monitor must be one of {', '.join(known)}, got {name}{hint(nearest(name, known))}."


def known_sentence(message: str) -> str | None:
    """The sentence of ours for one that torch or Lightning says without the flag or the cure."""
    for pattern, sentence in _SENTENCES.items():
        if found := re.search(pattern, message):
            return sentence.format(*found.groups())
    return None


def _is_about_the_command(error: Exception) -> bool:
    """Whether an exception is about what was asked for; any other is a fault of the program and keeps its traceback."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    of_lightning = isinstance(error, RuntimeError | ValueError | ImportError) and raised_in.is_relative_to(_LIGHTNING)
    of_optimizer = isinstance(error, RuntimeError) and raised_in.is_relative_to(_OPTIMIZERS)
    ours = isinstance(error, ValueError | ImportError) and raised_in.is_relative_to(Path(bnn_lightning.__file__).parent)
    return (
        ours
        or of_lightning
        or of_optimizer
        or isinstance(error, MisconfigurationException | DataNotFoundError | UnwritableError)
    )


def _with_flag(message: str, config: Namespace) -> str:
    """Writes an argument that a message begins with, such as prior_sigma, as the flag that sets it."""
    argument = re.match(r"(\w+) must ", message)
    if argument is None:
        return message
    keys = [key for key in config.keys(branches=True) if key.split(".")[-1] == argument[1]]
    if not keys:
        return message
    # Where several parts have an argument of that name, it is the one with the value that the message tells.
    keys.sort(key=lambda key: f"got {config[key]}" not in message)
    return f"--{keys[0].replace('init_args.', '')}{message.removeprefix(argument[1])}"
