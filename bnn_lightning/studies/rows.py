"""The rows of a study, one for each finished or failed run, and the CSV file that holds them."""

import csv
import json
import math
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import bnn_lightning
from bnn_lightning.checkpoints.record import Record
from bnn_lightning.cli import UsageError
from bnn_lightning.core.conversion import to_plain
from bnn_lightning.files import write_rows
from bnn_lightning.networks import multiply_adds
from bnn_lightning.reporting.cells import title_of
from bnn_lightning.studies.base import Study, Task, as_argument
from bnn_lightning.studies.columns import has_numbers
from bnn_lightning.training.loading import from_record
from bnn_lightning.training.module import BayesianModule
from bnn_lightning.training.runs import Run
from bnn_lightning.wording import listed, one_line

Row = dict[str, Any]

# What a row has of each way of predicting, by the names of results.schema.json, and what its columns there begin with.
MEASURES = (
    *("accuracy", "nll", "brier", "ece", "nll_scaled", "ece_scaled"),  # of classes
    *("rmse", "mae", "r2", "crps", "coverage_90", "width_90", "calibration_error", "sharpness"),  # of numbers
    *("crps_scaled", "coverage_90_scaled", "conformal_coverage_90", "conformal_width_90"),
)
_SCORES = ("accuracy", "skill")  # of the likelihoods, in metrics.csv
_PREFIXES = {"samples": "", "one_sample": "one_", "mean_weights": "mean_", "kept_weights": "kept_"}


def head(task: Task) -> Row:
    """The columns of a row that identify its cell and seed; they are known before the run."""
    return {**task.cell.axes, "seed": str(task.seed), "settings": task.settings}


def from_runs(task: Task, runs: Sequence[Run], checkpoint: Path) -> Row:
    """The row of a run that was trained and tested, or of several that were joined and tested.

    Args:
        task: that was run.
        runs: whose networks were trained.
        checkpoint: that was tested, among those of the first run.
    """
    tests = sorted(runs[0].logs.glob(f"test_*_{checkpoint.stem}*.json"), key=lambda path: path.stat().st_mtime)
    # Those of an ensemble lie beside those of its first network, and may have been written meanwhile.
    newest_first = (json.loads(path.read_text("utf-8")) for path in reversed(tests))
    results = next(each for each in newest_first if Path(each["checkpoint"]).name == checkpoint.name)
    record = Record.read(runs[0].checkpoints / f"{task.checkpoint}.ckpt")
    trained = [list(csv.DictReader((run.logs / "metrics.csv").read_text("utf-8").splitlines())) for run in runs]
    epochs = trained[0]
    epoch = epochs[results["training"]["epoch"] - 1]
    row = {"data": results["data"], "test_images": results["images"], "epochs": len(epochs)}
    row["predicted by"] = title_of("samples", results["sampling"], results["method"])
    for way, metrics in results["predictions"].items():
        row |= {f"{_PREFIXES[way]}{name}": metrics[name] for name in MEASURES if name in metrics}
    score = next((name for name in _SCORES if f"train/{name}" in epoch), "accuracy")
    if not task.members:
        row |= {f"{part}_{name}": epoch.get(f"{part}/{name}") for part in ("val", "train") for name in (score, "nll")}
    row |= {name: results["training"][name] for name in ("num_train", "kl_weight", "kl_per_n", "elbo_per_n")}
    row |= {"sigma_over_prior": results.get("sigma_over_prior"), "temperature": results["temperature"]}
    row |= _elsewhere(results)
    row["passes"] = results["sampling"]["samples"]
    if "sparsity" in results:
        layers = [f"{100 * layer['sparsity']:.1f}" for layer in results["sparsity"]["layers"]]
        row |= {name: results["sparsity"][name] for name in ("sparsity", "compression", "compression_with_biases")}
        row["sparsity_by_layer"] = "-".join(layers)
    if data := record.data:
        module = from_record(BayesianModule, record)
        row["parameters"] = sum(parameter.numel() for parameter in module.parameters())
        row["bytes"] = sum(tensor.numel() * tensor.element_size() for tensor in module.network.state_dict().values())
        is_table = "in_features" in data
        shape = (data["in_features"],) if is_table else (data["channels"], data["image_size"], data["image_size"])
        row["multiply_adds"] = multiply_adds(to_plain(module.network), shape)
        row |= {name: row[name] * len(runs) for name in ("parameters", "bytes", "multiply_adds")}
    row["step_ms"] = round(statistics.median(float(epoch["ms_per_batch"]) for of_one in trained for epoch in of_one), 2)
    row["seconds"] = round(sum(float(epoch["seconds"]) for of_one in trained for epoch in of_one), 1)
    if not task.members:
        validated = [epoch[f"val/{score}"] for epoch in epochs if epoch.get(f"val/{score}")]
        row[f"val_{score}_by_epoch"] = " ".join(f"{100 * float(value):.2f}" for value in validated)
    row["caveats"] = ", ".join(results["caveats"])
    row["versions"] = " ".join(f"{name} {version}" for name, version in record.versions.items())
    row["machine"] = f"{platform.machine()}, OMP threads {torch.get_num_threads()}"
    # The columns of the cell come first, and win where an axis has the name of a measured column.
    return head(task) | row | head(task) | {"command": task.command}


def _elsewhere(results: Mapping[str, Any]) -> Row:
    """The columns of ``--data.ood``, and of ``--data.corruptions`` the means over all of them."""
    row = {
        f"{metric}/{score}/{name}": value["value"]
        for name, scores in results.get("ood", {}).items()
        for score, metrics in scores.items()
        for metric, value in metrics.items()
    }
    corrupted = [
        measured
        for kind, severities in results.get("corruptions", {}).items()
        if kind != "clean"
        for measured in severities.values()
    ]
    for metric in ("accuracy", "nll", "ece"):
        if values := [measured[metric] for measured in corrupted if metric in measured]:
            row[f"corrupted_{metric}"] = statistics.mean(values)
    return row


def from_simulation(task: Task, folder: Path) -> Row:
    """The row of a labelling loop, with accuracy and NLL after each round."""
    rounds = list(csv.DictReader((folder / "rounds.csv").read_text("utf-8").splitlines()))
    asked = json.loads((folder / "simulation.json").read_text("utf-8"))
    last = rounds[-1]
    row: Row = {"data": asked["data"]["class_path"].rpartition(".")[2], "labels": last["labels"]}
    for name in ("accuracy", "nll"):
        values = [float(each[name]) for each in rounds]
        row |= {name: values[-1], f"curve_{name}": statistics.mean(values)}
    row["foreign"] = last["foreign"]
    for name in ("labels", "accuracy", "nll"):
        row[f"{name}_by_round"] = " ".join(f"{float(each[name]):.6g}" for each in rounds)
    row["seconds"] = round(sum(float(each["seconds"]) for each in rounds), 1)
    row |= {"caveats": "", "versions": f"torch {torch.__version__} bnn_lightning {bnn_lightning.__version__}"}
    row["machine"] = f"{platform.machine()}, OMP threads {torch.get_num_threads()}"
    return head(task) | row | head(task) | {"command": task.command}


def read(path: Path) -> list[Row]:
    """The rows of a CSV file; an empty list if there is no file.

    Raises:
        UsageError: when it is no table of a study, such as one that another program has saved with other separators;
            or when a number in it is none.
    """
    if not path.is_file():
        return []
    try:
        # A spreadsheet marks a file that it saves as UTF-8, and the mark would belong to the name of the first column.
        with path.open(encoding="utf-8-sig", newline="") as file:  # by lines of the file: a cell may have several
            table = csv.DictReader(file)
            columns, lines = table.fieldnames or (), [(table.line_num, row) for row in table]
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} must be a table in UTF-8, got a byte that is none: {one_line(error)}.") from error
    if columns and not {"seed", "settings"} <= set(columns):
        raise UsageError(
            f"{path} must have the columns seed and settings, separated by commas, got {listed(columns, 5)}; save it "
            "as it was, or move it away, and what has been finished here is written anew."
        )
    for number, row in lines:
        if reason := _spoilt(row):
            raise UsageError(
                f"{path}, line {number}: {reason}; write what was there, or delete the line, and the run is done again "
                "unless the journal has its row."
            )
    return [row for _, row in lines]


def _spoilt(row: Mapping[Any, Any]) -> str | None:
    """What a sentence says of the first value in a line of the file that cannot be used, if there is one."""
    if None in row:  # so csv calls them
        return f"it must have a cell for each column, got {listed(map(repr, row[None]))} beyond the last one"
    try:
        for name, value in row.items():
            if name == "seed":
                int(value)
            elif value and has_numbers(name):
                float(value)
            elif value and name.endswith("_by_round"):
                list(map(float, value.split()))
    except (TypeError, ValueError):
        return f"{name} must be a number, got {value!r}"
    return None


def write(path: Path, study: Study, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes the rows atomically, in the order of the study's cells and seeds.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    positions = {cell.name: position for position, cell in enumerate(study.all_cells())}
    ordered = sorted(rows, key=lambda row: (positions.get(name_of(study, row), len(positions)), int(row["seed"])))
    columns = list(dict.fromkeys(name for row in ordered for name in row))
    last = ("caveats", "failed", "versions", "machine", "command")
    columns.sort(key=lambda name: last.index(name) if name in last else -1)
    write_rows(path, columns, ordered)


def name_of(study: Study, row: Mapping[str, Any]) -> str:
    """The name of the cell that a row belongs to."""
    return ", ".join(row[axis] for axis in study.axes if row.get(axis))


def trial_values(study: Study, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The values of a search's flags in a row; None for a row that was made with other settings."""
    try:
        values = {name: _value(row.get(name), space) for name, space in study.search.items()}
    except ValueError:
        return None
    return values if study.task(study.cell_of(values), int(row["seed"])).key == key_of(study, row) else None


def _value(text: str | None, space: Any) -> Any:
    """The value of a flag from its text in a row; raises ValueError where it is outside the search space."""
    if isinstance(space, list):
        return space[[as_argument(choice) for choice in space].index(text or "")]
    value = json.loads(text or "")
    if not isinstance(value, int | float) or not space["low"] <= value <= space["high"]:
        raise ValueError
    return value


def search_objective(row: Mapping[str, Any]) -> float:
    """What a search minimises: the validation NLL or, without a hold-out, the training NLL; inf where it is nan."""
    value = float(row.get("val_nll") or row.get("train_nll") or "nan")
    return math.inf if math.isnan(value) else value


def key_of(study: Study, row: Mapping[str, Any]) -> str:
    """The key of the task that a row belongs to; see :attr:`Task.key`."""
    return f"{name_of(study, row)}, seed {row['seed']} ({row['settings']})"
