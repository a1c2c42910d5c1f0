"""Means and standard deviations over seeds of runs that differ in one setting: precision, number of processes.

    python benchmarks/seeds.py measure ROWS.csv GROUP "NAME:checkpoints/lenet_lrt/version_0/last.ckpt" ...
    python benchmarks/seeds.py table ROWS.csv

``measure`` adds a row for each checkpoint; it tests the checkpoint first if that has not been done.
"""

import json
import statistics
import sys
from pathlib import Path

from rows import add, read, show_means

from bnn_lightning.checkpoints.record import Record
from bnn_lightning.cli import main
from bnn_lightning.reporting.cells import title_of
from bnn_lightning.training.runs import Run

COLUMNS = [
    ("train/loss", "loss", 1, 3),
    ("elbo_per_n", "elbo/N", 1, 3),
    ("val/nll", "validation NLL", 1, 4),
    ("accuracy", "test accuracy, %", 100, 2),
    ("nll", "NLL", 1, 4),
    ("ece", "ECE", 1, 4),
    ("mean_accuracy", "mean weights, %", 100, 2),
    ("mean_nll", "NLL", 1, 4),
    ("seconds", "s an epoch", 1, 1),
]


def measure(rows: Path, group: str, named: list[str]) -> None:
    for argument in named:
        name, _, path = argument.partition(":")
        logs = Run.from_checkpoint(path).logs
        if not list(logs.glob("test_*_last.json")) and main(["test", "--ckpt_path", path]):
            raise SystemExit(f"{path} could not be tested")
        (file,) = logs.glob("test_*_last.json")
        results, config = json.loads(file.read_text()), Record.read(path).config
        epochs = read(logs / "metrics.csv")
        row = {"group": group, "name": name, "seed": config["seed_everything"], "data": results["data"]}
        row |= {
            "epochs": len(epochs),
            "devices": config["trainer"]["devices"],
            "caveats": ", ".join(results["caveats"]),
        }
        row |= {key: epochs[-1][key] for key in ("train/loss", "val/nll")}
        row["elbo_per_n"] = results["training"]["elbo_per_n"]
        row |= {"prediction": title_of("samples", results["sampling"], results["method"])}
        row |= {key: results["predictions"]["samples"][key] for key in ("accuracy", "nll", "ece")}
        row |= {f"mean_{key}": results["predictions"]["mean_weights"][key] for key in ("accuracy", "nll")}
        add(rows, row | {"seconds": statistics.median(float(epoch["seconds"]) for epoch in epochs)})


def table(rows: Path) -> None:
    groups: dict[str, dict[str, list[dict]]] = {}
    for row in read(rows):
        groups.setdefault(row["group"], {}).setdefault(row["name"], []).append(row)
    for group, by_name in groups.items():
        show_means(group, "seeds", by_name, COLUMNS)


if __name__ == "__main__":
    command, file, *words = sys.argv[1:]
    if command == "measure":
        measure(Path(file), words[0], words[1:])
    else:
        table(Path(file))
