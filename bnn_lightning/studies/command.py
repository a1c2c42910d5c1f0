"""Run a grid of runs, on one machine or several, and report it as a table."""

import argparse
import signal
import sys
from typing import Any, NoReturn

from bnn_lightning.cli import UsageError
from bnn_lightning.cli.programs import ProgramParser
from bnn_lightning.files import UnwritableError, expanded, expanded_text
from bnn_lightning.shipped import found
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.processes import StudyInterruptedError
from bnn_lightning.studies.report import write_report
from bnn_lightning.studies.running import Runner, dry_run


def parser() -> argparse.ArgumentParser:
    """The argument parser of ``bnn study``."""
    arguments = ProgramParser(
        prog="bnn study",
        description="Train and test every cell of a study file that has no row yet. What was interrupted goes on where "
        "it stopped, what is finished is never run twice, and failures are recorded with their reason.",
        epilog="The same command in several processes or, with --storage, on several machines shares the work. With "
        "--debug an error's sentence comes with its traceback.",
    )
    arguments.add_argument(
        "files", nargs="+", metavar="FILE", help="study files, or names of bnn configs, such as paddle_mnist"
    )
    arguments.add_argument(
        "--dry_run",
        action="store_true",
        help="run nothing; print what has no row yet, as commands, and which cells of a grid would be refused at once",
    )
    arguments.add_argument(
        "--report", action="store_true", help="run nothing; write table, means and figure of what is there"
    )
    arguments.add_argument("--only", default="*", metavar="PATTERN", help="only cells of these names, such as 'LeNet*'")
    arguments.add_argument("--retry", action="store_true", help="run again what failed")
    arguments.add_argument("--retake", action="store_true", help="run what another machine began and will not finish")
    arguments.add_argument(
        "--storage",
        metavar="WHERE",
        help="Optuna's: a journal file or the URL of a database; default a file of this folder",
    )
    arguments.add_argument(
        "--results", default="results", metavar="FOLDER", help="of NAME.csv and the report (%(default)s)"
    )
    return arguments


def study(words: list[str]) -> int:
    """Runs ``bnn study`` with the arguments ``words`` and returns the exit code.

    0: success. 1: a cell has failed or, in a dry run, would fail. 130: stopped.

    Raises:
        UsageError: when the arguments or the study file are wrong, or nothing can be written.
    """
    previous_handler = signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments = parser().parse_args(words)
        results = expanded(arguments.results)
        failed = 0
        for definition in [Study.read(found(expanded_text(file), "study")) for file in arguments.files]:
            if arguments.dry_run:
                failed += dry_run(definition, results, arguments.only, arguments.retry, _say)
            elif arguments.report:
                _say(write_report(definition, results))
            else:
                runner = Runner(definition, results, arguments.storage, _say)
                failed += runner.run(arguments.only, arguments.retry, arguments.retake)
        return 1 if failed else 0
    except UnwritableError as error:
        raise UsageError(str(error)) from error
    except (StudyInterruptedError, KeyboardInterrupt):
        print("bnn: stopped; the same command goes on.", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, flush=True)
