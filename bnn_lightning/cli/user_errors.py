"""Exceptions about what was asked for, turned into one sentence that names the flag."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import bnn_lightning
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.data import DataNotFoundError
from bnn_lightning.files import UnwritableError
from bnn_lightning.training.callbacks import TrainingStoppedError


@contextmanager
def user_errors(config: Namespace) -> Iterator[None]:
    """Turns exceptions about what ``config`` asks for into a UsageError that names the flag."""
    try:
        yield
    except TrainingStoppedError as error:
        raise UsageError(str(error)) from error
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise
        raise UsageError(
            "--ckpt_path does not fit the network or method of the command line; leave --model.* out."
        ) from error
    except Exception as error:
        # A method's settings are checked inside jsonargparse, which wraps what they raise.
        wrapped = re.search(r"- (\w+ must .*)", str(error)) if isinstance(error, ValueError) else None
        if wrapped is None and not _is_about_the_command(error):
            raise
        message = wrapped[1] if wrapped else str(error)
        raise UsageError(_with_flag(message, config)) from error


def _is_about_the_command(error: Exception) -> bool:
    """Whether an exception is about what was asked for; any other is a fault of the program and keeps its traceback."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    ours = isinstance(error, ValueError | ImportError) and raised_in.is_relative_to(Path(bnn_lightning.__file__).parent)
    return ours or isinstance(error, MisconfigurationException | DataNotFoundError | UnwritableError)


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
