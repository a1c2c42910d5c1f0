"""Kills training runs with SIGKILL, resumes them, and compares what they end with to a run that was left alone.

    python benchmarks/fault_campaign.py run ROWS.csv [--kills 60] [--seed 0]
    python benchmarks/fault_campaign.py table ROWS.csv

Each run trains a LeNet on MNIST5k for three epochs and saves every few steps. It is killed at a random moment of its
life, or where a kill does most harm: within a step, within a validation or a calibration, with a file half written,
written but not yet in its place, or in its place a moment ago. Then it is resumed from last.ckpt until it ends, and one
in three is killed on the way again. Compared, bit for bit: every entry of best.ckpt and last.ckpt (weights, optimiser,
schedules, random states, calibration), metrics.csv without its seconds, and the curves as TensorBoard reads them.
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
from bnn_lightning.likelihoods.categorical import calibration
from bnn_lightning.training import module
from bnn_lightning.training.checkpoints import read_checkpoint

ROOT = Path(__file__).parent.parent
NAME = "run"
COMMON = ["--name", NAME, "--data", "MNIST5k", "--trainer.max_epochs", "3", "--save_every_n_steps", "4"]
SCENARIOS = {
    "LRT, warm-up, linear decay": [],
    "Flipout, plateau, augmentation, 2 batches a step": [
        *("--model.method", "Flipout", "--model.lr_schedule", "Plateau", "--model.lr_schedule.patience", "0"),
        *("--data.crop_padding", "2", "--trainer.accumulate_grad_batches", "2", "--save_every_n_steps", "3"),
    ],
    "BBB, validated twice an epoch": ["--model.method", "BBB", "--trainer.val_check_interval", "0.5"],
}
LAST = f"checkpoints/{NAME}/version_0/last.ckpt"


def kill_here() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def plant(owner: Any, name: str, call: int, before: Callable[..., None] | None = None) -> None:
    """Kills this process at the call number ``call`` of ``owner.name``, before it or, by default, after it."""
    original, calls = getattr(owner, name), [0]

    def planted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and before is not None:
            before(*args)
            kill_here()
        result = original(*args, **kwargs)
        if calls[0] == call:
            kill_here()
        return result

    setattr(owner, name, planted)


def half_written(descriptor: int) -> None:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):  # a folder is written at once
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)


# Where a kill is planted, and among how many calls of a whole run.
PLACES: dict[str, tuple[int, Callable[[int], None]]] = {
    "in a step": (39, lambda call: plant(module.BayesianClassifier, "training_step", call)),
    "in a validation": (3, lambda call: plant(module.BayesianClassifier, "validation_step", call)),
    "in the calibration": (4, lambda call: plant(calibration.Calibration, "fit", call)),
    "file half written": (24, lambda call: plant(files.os, "fsync", call, half_written)),
    "file not yet in place": (12, lambda call: plant(files.os, "replace", call, lambda *_: None)),
    "file just in place": (12, lambda call: plant(files.os, "replace", call)),
}


def apart(work: Callable[[], int], log: Path, seconds: float | None = None) -> int | None:
    """What ``work`` returns in a process of its own, which has all imports behind it; None where it was killed.

    This process itself never computes: threads of torch's would be missing in those that are forked from it.
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


def run(folder: Path, words: list[str], planted: tuple[str, int] | None = None, seconds: float | None = None) -> bool:
    """Trains, killed as planned; whether the run came to its end."""

    def work() -> int:
        os.chdir(folder)
        if planted is not None:
            PLACES[planted[0]][1](planted[1])
        code = cli.main(["fit", *words])
        sys.stdout.flush()
        return code

    code = apart(work, folder / "log.txt", seconds)
    if code == 2 and "has finished its 3 epochs" in (folder / "log.txt").read_text():
        return True  # it was killed when all was done
    if code:
        raise RuntimeError(f"a run ended with an error: {(folder / 'log.txt').read_text()[-2000:]}")
    return code is not None


def compared(one: Path, other: Path) -> list[str]:
    """In which places two runs came to something else."""
    found = other / "differences.txt"

    def work() -> int:
        found.write_text("\n".join(differences(outcome(one, NAME), outcome(other, NAME))))
        return 0

    if apart(work, other / "log.txt") != 0:
        raise RuntimeError(f"the runs cannot be compared: {(other / 'log.txt').read_text()[-2000:]}")
    return found.read_text().splitlines()


def outcome(folder: Path, name: str) -> dict[str, Any]:
    """All that the first run of this name leaves behind, but times."""
    logs, checkpoints = (folder / tree / name / "version_0" for tree in ("lightning_logs", "checkpoints"))
    rows = list(csv.DictReader((logs / "metrics.csv").read_text().splitlines()))
    for row in rows:
        del row["seconds"], row["ms_per_batch"]
    events = EventAccumulator(str(logs)).Reload()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    found: dict[str, Any] = {"rows": rows, "curves": curves}
    for file in sorted(checkpoints.iterdir()):
        found[file.name] = read_checkpoint(file)
        del found[file.name]["loops"]  # counts what Lightning has begun, which differs where a run has gone on
    return found


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """The places in which two outcomes are not the same, bit for bit."""
    if type(one) is not type(other) or (isinstance(one, dict | list | tuple) and len(one) != len(other)):
        return [where]
    if isinstance(one, dict):
        missing = [f"{where}/{key}" for key in one.keys() - other.keys()]
        pairs = {key: (one[key], other[key]) for key in one.keys() & other.keys()}
        return missing + [place for key, pair in pairs.items() for place in differences(*pair, f"{where}/{key}")]
    if isinstance(one, list | tuple):
        pairs = enumerate(zip(one, other, strict=True))
        return [place for key, pair in pairs for place in differences(*pair, f"{where}/{key}")]
    if isinstance(one, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [where]
    return [] if one == other else [where]


def campaign(kills: int, seed: int, keep: bool) -> Iterator[dict[str, Any]]:
    choose = random.Random(seed)
    config = ["--config", str(ROOT / "configs" / "lenet_lrt.yaml"), *COMMON]
    for scenario, flags in SCENARIOS.items():
        alone = Path(tempfile.mkdtemp())
        start = time.monotonic()
        run(alone, [*config, *flags])
        length = time.monotonic() - start
        for number in range(-(-kills // len(SCENARIOS))):
            place = ["at a random moment", *PLACES][number % (1 + len(PLACES))]
            folder, killed = Path(tempfile.mkdtemp()), 0
            words = [*config, *flags]
            while True:
                wanted = killed == 0 or (killed < 3 and choose.random() < 1 / 3)
                planted = (place, choose.randint(1, PLACES[place][0])) if wanted and place in PLACES else None
                seconds = choose.uniform(0, length) if wanted and place not in PLACES else None
                if run(folder, words, planted, seconds):
                    break
                killed += 1
                if (folder / LAST).is_file():
                    words = ["--ckpt_path", LAST]
                else:  # nothing was saved yet: it is started anew
                    for tree in ("lightning_logs", "checkpoints"):
                        shutil.rmtree(folder / tree, ignore_errors=True)
            found = compared(alone, folder)
            yield {"scenario": scenario, "killed": place, "times": killed, "differences": len(found)}
            print(f"{scenario}; killed {place}, {killed} times: {', '.join(found[:5]) or 'the same'}", flush=True)
            if not (found and keep):
                shutil.rmtree(folder)
        shutil.rmtree(alone)


def table(rows: Path) -> None:
    by_place: dict[str, list[dict]] = {}
    for row in read(rows):
        if row["times"] != "0":  # a random moment can be after the end
            by_place.setdefault(row["killed"], []).append(row)
    by_place["all"] = [row for found in by_place.values() for row in found]
    lines = []
    for place, found in by_place.items():
        same = sum(row["differences"] == "0" for row in found)
        lines.append([place, str(len(found)), str(sum(int(row["times"]) for row in found)), str(same)])
    show("killed", ["runs", "kills", "bit-identical"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("rows", type=Path, help="a CSV file")
    parser.add_argument("--kills", type=int, default=60, help="runs that are killed, once or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the folders of runs that differ")
    arguments = parser.parse_args()
    if arguments.command == "run":
        for row in campaign(arguments.kills, arguments.seed, arguments.keep):
            add(arguments.rows, row)
    table(arguments.rows)


if __name__ == "__main__":
    main()
