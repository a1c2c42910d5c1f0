"""``bnn`` as a function: words in, exit code out, every error one sentence."""

import logging
import os
import signal
import sys
import warnings
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnn_lightning.cli.errors import StoppedError, UsageError
from bnn_lightning.cli.parser import ParseError, one_sentence
from bnn_lightning.cli.verbs import CommandLine


def main(args: list[str] | None = None) -> int:
    """Runs the command line; 0 when all went well, 2 after one sentence that says what did not."""
    _silence_the_libraries()
    try:
        CommandLine(args)
    except BrokenPipeError:
        # Whoever was reading, such as head, has seen enough; there is nowhere left to say anything.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ParseError, UsageError) as error:
        print(f"bnn: error: {_sentence(error, args)}", file=sys.stderr)
        return 2
    except (StoppedError, KeyboardInterrupt) as error:
        signum = error.signum if isinstance(error, StoppedError) else signal.SIGINT
        if getattr(rank_zero_only, "rank", 0) != 0:
            return 0  # Lightning kills the first process where another one leaves in any other way
        print(f"bnn: {str(error) or 'stopped.'}", file=sys.stderr)
        return 128 + signum  # as the shell has it
    return 0


class _AcceptedError(Exception):
    """Network and data module could be built."""


class _Check(CommandLine):
    """Goes no further than that."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        raise _AcceptedError


def refusal(args: list[str]) -> str:
    """The sentence that ``bnn`` would refuse ``args`` with before it reads any image or writes anything; often none."""
    _silence_the_libraries()
    try:
        _Check(args)
    except _AcceptedError:
        return ""
    except (ParseError, UsageError) as error:
        return _sentence(error, args)
    raise AssertionError("a trainer was built")


def _sentence(error: ParseError | UsageError, args: list[str] | None) -> str:
    return one_sentence(str(error), _verb(args)) if isinstance(error, ParseError) else str(error)


def _verb(args: list[str] | None) -> str:
    """What was asked for; fit, whose help has the most, where that was no verb."""
    words = sys.argv[1:] if args is None else args
    return words[0] if words and words[0] in CommandLine.subcommands() else "fit"


def _silence_the_libraries() -> None:
    """Leaves the screen to what the user asked for: no hardware lines, tips, or deprecations inside libraries."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # inductor asks it for CUDA's folder
    warnings.filterwarnings("ignore", module=r"(lightning|torchmetrics|torch|jsonargparse)\.")
