"""``bnn`` in a process of its own, as a study runs it: with everything imported, and its output in a file."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from bnn_lightning.cli import main

_STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}


class StudyInterruptedError(Exception):
    """A study was asked to stop; the run that it was training has been saved."""


def run_bnn(words: Iterable[str], log: Path) -> str:
    """Runs ``bnn`` in a process of its own; returns the reason if it failed, else an empty text."""
    log.touch()
    start = log.stat().st_size
    process = _process_context().Process(target=_bnn_process, args=(list(words), log, Path.cwd()))
    process.start()
    try:
        process.join()
    except KeyboardInterrupt:
        process.terminate()  # SIGTERM lets it save, which a second Ctrl-C would not
        process.join()
        raise StudyInterruptedError from None
    code = process.exitcode or 0
    if code in _STOPPED:
        raise StudyInterruptedError
    if code == 0:
        return ""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (", often for lack of memory" if code == -9 else "")
    lines = [line for line in log.read_bytes()[start:].decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("bnn: error: ") for line in lines if line.startswith("bnn: error: ")]
    return (errors or lines or [f"exit code {code}"])[-1]


@cache
def _process_context() -> Any:
    """Starts processes that have everything imported already, where the operating system allows it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    names = ("command_line", "verbs.fit", "verbs.test", "verbs.ensemble", "verbs.simulate")
    context.set_forkserver_preload([f"bnn_lightning.cli.{name}" for name in names])
    return context


def _bnn_process(words: list[str], log: Path, folder: Path) -> None:
    """The body of such a process: ``bnn`` with its output appended to a file."""
    os.chdir(folder)  # the process starts in the folder in which the fork server was started
    sys.argv[1:] = words  # Lightning starts the other processes of a distributed run with these arguments
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.exit(main(words))
