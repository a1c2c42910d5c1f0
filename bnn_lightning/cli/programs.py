"""The argument parser of verbs with a command line of their own, whose errors are one sentence."""

import argparse
import re
from typing import NoReturn

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.wording import hint, nearest


class ProgramParser(argparse.ArgumentParser):
    """An argument parser that raises UsageError, and names its help."""

    def error(self, message: str) -> NoReturn:
        if unknown := re.match(r"unrecognized arguments: (--[^\s=]+)", message):
            known = [flag for action in self._actions for flag in action.option_strings]
            message = f"{unknown[1]} is not a flag{hint(nearest(unknown[1], known, cutoff=0.6))}"
        raise UsageError(f"{message}; {self.prog} --help says what there is.")
