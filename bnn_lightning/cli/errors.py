"""Exceptions whose message is one sentence to the person who typed the command, and the answer to SIGTERM."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


class UsageError(Exception):
    """The command cannot be run as it was typed; the message says why."""


class StoppedError(Exception):
    """A run was stopped from outside; the message says where it stands and how to go on.

    Args:
        message: a sentence.
        signum: of the signal.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Has SIGTERM raise a StoppedError, so that unfinished files are removed; by itself it ends a process at once."""
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(*_: Any) -> NoReturn:
    raise StoppedError("stopped by SIGTERM.", signal.SIGTERM)
