"""The command line of ``bnn study``."""

import argparse
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from bnn_lightning.cli import UsageError
from bnn_lightning.files import UnwritableError
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.report import write_report
from bnn_lightning.studies.running import Runner, StudyInterruptedError, dry_run


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; bnn study --help says what there is.")


def parser() -> argparse.ArgumentParser:
    """The arguments of ``bnn study``."""
    found = _Parser(
        prog="bnn study",
        description="Train and test every cell of a study file that has no row yet. What was interrupted goes on where "
        "it stopped, what is finished is never run twice, and what fails is put down with its reason.",
        epilog="The same command in several processes or, with --storage, on several machines shares the work.",
    )
    found.add_argument(
        "files", nargs="+", metavar="FILE", help="study files, such as configs/studies/paddle_mnist.yaml"
    )
    found.add_argument(
        "--dry_run",
        action="store_true",
        help="run nothing; print what has no row yet, as commands, and which cells of a grid would be refused at once",
    )
    found.add_argument(
        "--report", action="store_true", help="run nothing; write table, means and figure of what is there"
    )
    found.add_argument("--only", default="*", metavar="PATTERN", help="only cells of these names, such as 'LeNet*'")
    found.add_argument("--retry", action="store_true", help="run again what failed")
    found.add_argument("--retake", action="store_true", help="run what another machine began and will not finish")
    found.add_argument(
        "--storage",
        metavar="WHERE",
        help="Optuna's: a journal file or the URL of a database; default a file of this folder",
    )
    found.add_argument(
        "--results", default="results", metavar="FOLDER", help="of NAME.csv and the report (%(default)s)"
    )
    return found


def study(words: list[str]) -> int:
    """Runs ``bnn study``; gives its exit code.

    It is 0 when all went well; 1 where a cell has failed or, in a dry run, would; 2 after one sentence about what was
    asked; 130 when stopped.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        asked = parser().parse_args(words)
        failed = 0
        for one in [Study.read(file) for file in asked.files]:
            if asked.dry_run:
                failed += dry_run(one, Path(asked.results), asked.only, asked.retry, _say)
            elif asked.report:
                _say(write_report(one, Path(asked.results)))
            else:
                runner = Runner(one, Path(asked.results), asked.storage, _say)
                failed += runner.run(asked.only, asked.retry, asked.retake)
        return 1 if failed else 0
    except (UsageError, UnwritableError) as error:
        print(f"bnn: error: {error}", file=sys.stderr)
        return 2
    except (StudyInterruptedError, KeyboardInterrupt):
        print("bnn: stopped; the same command goes on.", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, flush=True)
