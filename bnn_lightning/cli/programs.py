"""The argument parser of verbs with a command line of their own, whose errors are one sentence."""

import argparse
import re
from difflib import get_close_matches
from typing import NoReturn

from bnn_lightning.cli.errors import UsageError


class ProgramParser(argparse.ArgumentParser):
    """An argument parser that raises UsageError, and names its help."""

    def error(self, message: str) -> NoReturn:
        if unknown := re.match(r"unrecognized arguments: (--[^\s=]+)", message):
            known = [flag for action in self._actions for flag in action.option_strings]
            close = get_close_matches(unknown[1], known, n=1)
            message = f"{unknown[1]} is not a flag{f' (did you mean {close[0]}?)' if close else ''}"
        raise UsageError(f"{message}; {self.prog} --help says what there is.")
