"""Kills training runs with SIGKILL, resumes them, and compares their final files with those of an undisturbed run.

    python benchmarks/fault_campaign.py run ROWS.csv [--kills 60] [--seed 0] [--only IVON]
    python benchmarks/fault_campaign.py table ROWS.csv

Each run trains a LeNet on MNIST5k for three epochs and saves every few steps. It is killed at a random moment, or where
a kill could do most harm: within a training step, a validation or a calibration, while a file is half written, before
it is renamed to its final name, or just after. Then it is resumed from last.ckpt until it finishes; one in three is
killed again on the way. Compared bit for bit: every entry of best.ckpt and last.ckpt (weights, optimiser, schedules,
random states, calibration), metrics.csv without its timings, and the curves as TensorBoard reads them.
"""

import argparse
import csv
import math
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rows import add, read, show
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnn_lightning import cli, files
from bnn_lightning.checkpoints.record import read_checkpoint
from bnn_lightning.likelihoods.categorical import calibration
from bnn_lightning.training import module

ROOT = Path(__file__).parent.parent
NAME = "run"
COMMON = ["--name", NAME, "--data", "MNIST5k", "--trainer.max_epochs", "3", "--save_every_n_steps", "4"]
SCENARIOS = {
    "LRT, warm-up, linear decay": [],
    "Flipout, plateau, augmentation, 2 batches a step": [
        *("--model.method", "Flipout", "--model.inference.lr_schedule", "Plateau"),
        *("--model.inference.lr_schedule.patience", "0"),
        *("--data.crop_padding", "2", "--trainer.accumulate_grad_batches", "2", "--save_every_n_steps", "3"),
    ],
    "BBB, validated twice an epoch": ["--model.method", "BBB", "--trainer.val_check_interval", "0.5"],
    "IVON": ["--model.method", "BBB", "--model.inference", "IVON"],
    "SWAG": [
        *("--model.method", "null", "--model.inference", "SWAG"),
        *("--model.inference.collect_after", "0.3", "--model.inference.collections_per_epoch", "4"),
    ],
}
LAST = f"checkpoints/{NAME}/version_0/last.ckpt"


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_call(owner: Any, name: str, call: int, before: Callable[..., None] | None = None) -> None:
    """Makes this process kill itself at the call number ``call`` of ``owner.name``.

    It does so after the call or, where ``before`` is given, before the call, once ``before`` has run.
    """
    original, calls = getattr(owner, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and before is not None:
            before(*args)
            kill_this_process()
        result = original(*args, **kwargs)
        if calls[0] == call:
            kill_this_process()
        return result

    setattr(owner, name, counted)


def cut_in_half(descriptor: int) -> None:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):  # folders are synced too, and cannot be cut
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)


# The number of calls in an undisturbed run, and what makes a run kill itself at one of them.
KILL_POINTS: dict[str, tuple[int, Callable[[int], None]]] = {
    "in a step": (39, lambda call: kill_at_call(module.BayesianModule, "training_step", call)),
    "in a validation": (3, lambda call: kill_at_call(module.BayesianModule, "validation_step", call)),
    "in the calibration": (4, lambda call: kill_at_call(calibration.Calibration, "fit", call)),
    "file half written": (24, lambda call: kill_at_call(files.os, "fsync", call, cut_in_half)),
    "file not yet in place": (12, lambda call: kill_at_call(files.os, "replace", call, lambda *_: None)),
    "file just in place": (12, lambda call: kill_at_call(files.os, "replace", call)),
}


def in_fork(work: Callable[[], int], log: Path, seconds: float | None = None) -> int | None:
    """Runs ``work`` in a forked process, which need not import anything; gives its exit code, None if it was killed.

    This process itself must not compute with torch, because torch's threads do not survive a fork.

    Args:
        work: gives the exit code.
        log: the file for the output of the process.
        seconds: after which it is killed.
    """
    child = os.fork()
    if child == 0:
        with log.open("a") as lines:
            os.dup2(lines.fileno(), 1)
            os.dup2(lines.fileno(), 2)
        try:
            os._exit(work())
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(99)
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        if time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            deadline = math.inf
        time.sleep(0.002)


def run(folder: Path, words: list[str], kill: tuple[str, int] | None = None, seconds: float | None = None) -> bool:
    """Runs ``bnn fit``, killed at a kill point and call, or after some seconds; gives whether the run has finished."""

    def work() -> int:
        os.chdir(folder)
        if kill is not None:
            point, call = kill
            KILL_POINTS[point][1](call)
        code = cli.main(["fit", *words])
        sys.stdout.flush()
        return code

    code = in_fork(work, folder / "log.txt", seconds)
    if code == 2 and "has finished its 3 epochs" in (folder / "log.txt").read_text():
        return True  # it had been killed after its last epoch
    if code:
        raise RuntimeError(f"a run ended with an error: {(folder / 'log.txt').read_text()[-2000:]}")
    return code is not None


def differences_of_runs(undisturbed: Path, resumed: Path) -> list[str]:
    """The entries in which the files of two runs differ."""
    file = resumed / "differences.txt"

    def work() -> int:
        file.write_text("\n".join(differences(outcome(undisturbed, NAME), outcome(resumed, NAME))))
        return 0

    if in_fork(work, resumed / "log.txt") != 0:
        raise RuntimeError(f"the runs cannot be compared: {(resumed / 'log.txt').read_text()[-2000:]}")
    return file.read_text().splitlines()


def outcome(folder: Path, name: str) -> dict[str, Any]:
    """The contents of all files of the first run of this name, except timings."""
    logs, checkpoints = (folder / tree / name / "version_0" for tree in ("lightning_logs", "checkpoints"))
    rows = list(csv.DictReader((logs / "metrics.csv").read_text().splitlines()))
    for row in rows:
        del row["seconds"], row["ms_per_batch"]
    events = EventAccumulator(str(logs)).Reload()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    contents: dict[str, Any] = {"rows": rows, "curves": curves}
    for file in sorted(checkpoints.iterdir()):
        contents[file.name] = read_checkpoint(file)
        del contents[file.name]["loops"]  # Lightning's counters of begun loops differ in a resumed run
    return contents


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """The paths of the entries in which two nested values differ, bit for bit."""
    if type(first) is not type(second) or (isinstance(first, dict | list | tuple) and len(first) != len(second)):
        return [where]
    if isinstance(first, dict):
        missing = [f"{where}/{key}" for key in first.keys() - second.keys()]
        pairs = {key: (first[key], second[key]) for key in first.keys() & second.keys()}
        return missing + [path for key, pair in pairs.items() for path in differences(*pair, f"{where}/{key}")]
    if isinstance(first, list | tuple):
        pairs = enumerate(zip(first, second, strict=True))
        return [path for key, pair in pairs for path in differences(*pair, f"{where}/{key}")]
    if isinstance(first, torch.Tensor):
        return [] if first.dtype == second.dtype and torch.equal(first, second) else [where]
    return [] if first == second else [where]


def campaign(kills: int, seed: int, only: str, keep: bool) -> Iterator[dict[str, Any]]:
    """A row for each run that was killed; ``keep`` keeps the folders of runs that differ."""
    scenarios = {name: flags for name, flags in SCENARIOS.items() if only in name}
    generator = random.Random(seed)
    config = ["--config", str(ROOT / "configs" / "lenet_lrt.yaml"), *COMMON]
    for scenario, flags in scenarios.items():
        undisturbed = Path(tempfile.mkdtemp())
        start = time.monotonic()
        run(undisturbed, [*config, *flags])
        duration = time.monotonic() - start
        for number in range(-(-kills // len(scenarios))):
            point = ["at a random moment", *KILL_POINTS][number % (1 + len(KILL_POINTS))]
            folder, times_killed = Path(tempfile.mkdtemp()), 0
            words = [*config, *flags]
            while True:
                kills_it = times_killed == 0 or (times_killed < 3 and generator.random() < 1 / 3)
                kill, seconds = None, None
                if kills_it and point in KILL_POINTS:
                    kill = (point, generator.randint(1, KILL_POINTS[point][0]))
                elif kills_it:
                    seconds = generator.uniform(0, duration)
                if run(folder, words, kill, seconds):
                    break
                times_killed += 1
                if (folder / LAST).is_file():
                    words = ["--ckpt_path", LAST]
                else:  # nothing had been saved: start again
                    for tree in ("lightning_logs", "checkpoints"):
                        shutil.rmtree(folder / tree, ignore_errors=True)
            differing = differences_of_runs(undisturbed, folder)
            yield {"scenario": scenario, "killed": point, "times": times_killed, "differences": len(differing)}
            entries = ", ".join(differing[:5]) or "the same"
            print(f"{scenario}; killed {point}, {times_killed} times: {entries}", flush=True)
            if not (differing and keep):
                shutil.rmtree(folder)
        shutil.rmtree(undisturbed)


def table(path: Path) -> None:
    by_point: dict[str, list[dict]] = {}
    for row in read(path):
        if row["times"] != "0":  # a random moment can lie after the end of the run
            by_point.setdefault(row["killed"], []).append(row)
    by_point["all"] = [row for rows in by_point.values() for row in rows]
    lines = []
    for point, rows in by_point.items():
        same = sum(row["differences"] == "0" for row in rows)
        lines.append([point, str(len(rows)), str(sum(int(row["times"]) for row in rows)), str(same)])
    show("killed", ["runs", "kills", "bit-identical"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("rows", type=Path, help="a CSV file")
    parser.add_argument("--kills", type=int, default=60, help="runs that are killed, once or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="of scenarios with this in their name")
    parser.add_argument("--keep", action="store_true", help="keep the folders of runs that differ")
    arguments = parser.parse_args()
    if arguments.command == "run":
        for row in campaign(arguments.kills, arguments.seed, arguments.only, arguments.keep):
            add(arguments.rows, row)
    table(arguments.rows)


if __name__ == "__main__":
    main()
