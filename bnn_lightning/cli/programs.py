"""The argument parser of verbs with a command line of their own, whose errors are one sentence."""

import argparse
from typing import NoReturn

from bnn_lightning.cli.errors import UsageError


class ProgramParser(argparse.ArgumentParser):
    """An argument parser that raises UsageError, and names its help."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {self.prog} --help says what there is.")
