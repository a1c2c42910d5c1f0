"""Exceptions whose message is one sentence to the person who typed the command."""


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
