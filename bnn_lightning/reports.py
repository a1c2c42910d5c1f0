"""What a finished run leaves behind: a table on the screen, results as JSON and CSV, predictions as CSV."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bnn_lightning.classifier import TrainingSummary


def show_training(console: Console, rows: Mapping[str, tuple[TrainingSummary, Mapping[str, float], list[str]]]) -> None:
    """The table at the end of fit: for each checkpoint its training summary, validation metrics and data notes."""
    table = _table("checkpoint", "epoch", "val nll", "val accuracy", "train nll", "kl/N", "elbo/N")
    for name, (summary, val, _) in rows.items():
        table.add_row(
            name,
            str(summary.epoch + 1),
            _number(val.get("val/nll")),
            _percent(val.get("val/accuracy")),
            _number(summary.nll),
            _number(summary.kl_per_n, 3),
            _number(summary.elbo_per_n, 3),
        )
    console.print(table)
    for name, (summary, _, notes) in rows.items():
        _show_marks(console, f"{name}: ", summary.marks + notes)


def evaluation(
    predictions: Mapping[str, Mapping[str, float]],
    summary: TrainingSummary | None,
    data: Mapping[str, Any],
    images: int,
    checkpoint: str,
    method: str,
) -> dict[str, Any]:
    """An evaluation in plain values: metrics of each way of predicting, the training behind them, and their marks."""
    return {
        "checkpoint": checkpoint,
        "method": method,
        "data": data["name"],
        "images": images,
        "predictions": {name: dict(metrics) for name, metrics in predictions.items()},
        "training": summary
        and {
            "epoch": summary.epoch + 1,
            "num_train": summary.num_train,
            "kl_weight": summary.kl_weight,
            "kl_per_n": summary.kl_per_n,
            "elbo_per_n": summary.elbo_per_n,
        },
        "marks": (summary.marks if summary else []) + list(data["notes"]),
    }


def show_evaluation(console: Console, results: Mapping[str, Any]) -> None:
    """The table at the end of validate and test."""
    measured = next(iter(results["predictions"].values()))
    metrics = [name for name in ("accuracy", "nll", "ece", "brier") if name in measured]
    table = _table("prediction", *metrics)
    for name, row in results["predictions"].items():
        table.add_row(name, *(_percent(row[key]) if key == "accuracy" else _number(row[key]) for key in metrics))
    console.print(f"{results['data']}, {results['images']:,} images:")
    console.print(table)
    training = results["training"]
    if training and training["elbo_per_n"] is not None:
        console.print(
            f"elbo/N {training['elbo_per_n']:.3f}, kl/N {training['kl_per_n']:.3f} on the training images "
            f"(N = {training['num_train']:,}, epoch {training['epoch']}, KL weight {training['kl_weight']:.3g})"
        )
    _show_marks(console, "Note: ", results["marks"])


def write_evaluation(folder: Path, name: str, results: Mapping[str, Any]) -> list[Path]:
    """``name.json`` with everything and ``name.csv`` with a row for each way of predicting."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_csv = folder / f"{name}.json", folder / f"{name}.csv"
    as_json.write_text(json.dumps(results, indent=2) + "\n")
    common = {key: results[key] for key in ("checkpoint", "method", "data", "images")} | (results["training"] or {})
    common["marks"] = ", ".join(results["marks"])
    rows = [{"prediction": way} | row | common for way, row in results["predictions"].items()]
    _write_rows(as_csv, list(rows[0]), rows)
    return [as_json, as_csv]


def write_predictions(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """``predictions.csv``: one row for each picture, and for each that could not be read its reason."""
    columns = ["image", "class", "name", "confidence", "entropy", "mutual_information", "error"]
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_rows(path, columns, rows)


def _write_rows(path: Path, columns: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, columns)
        writer.writeheader()
        writer.writerows(rows)


def _show_marks(console: Console, start: str, marks: list[str]) -> None:
    if marks:
        console.print(f"{start}{', '.join(marks)}.", style="yellow")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return table


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
