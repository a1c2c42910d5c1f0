"""What test says of single classes, and the confusion matrix: as plain values, and as CSV files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bnn_lightning.files import write_rows
from bnn_lightning.likelihoods.categorical.classes import (
    distinct_names,
    f1_scores,
    precisions,
    recalls,
    wilson_intervals,
)


def class_results(confusion: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """``per_class`` and ``confusion_matrix`` as results have them.

    Args:
        confusion: ``(classes, classes)``, labels by rows.
        names: of the classes.
    """
    low, high = wilson_intervals(confusion.diagonal(), confusion.sum(1))
    columns = {
        "accuracy": recalls(confusion),
        "accuracy_low": low,
        "accuracy_high": high,
        "precision": precisions(confusion),
        "f1": f1_scores(confusion),
    }
    wrong = confusion.clone().fill_diagonal_(0)
    most, mistaken_for = wrong.max(1)
    rows = []
    for label, name in enumerate(names):
        values = {key: _number(column[label].item()) for key, column in columns.items()}
        other = names[int(mistaken_for[label])] if most[label] else None
        rows.append({"name": name, "images": int(confusion[label].sum())} | values | {"mistaken_for": other})
    return {"per_class": rows, "confusion_matrix": confusion.tolist()}


def write_classes(folder: Path, name: str, results: Mapping[str, Any]) -> list[Path]:
    """``name_classes.csv`` with a row for each class, and ``name_confusion.csv`` with one and a column for each."""
    rows, matrix = results["per_class"], results["confusion_matrix"]
    written = [folder / f"{name}_classes.csv", folder / f"{name}_confusion.csv"]
    write_rows(written[0], list(rows[0]), rows)
    # No folder, and so no class of an ImageFolder, can have the name of the first column.
    corner, names = "label / predicted", distinct_names([row["name"] for row in rows])
    table = [{corner: name} | dict(zip(names, counts, strict=True)) for name, counts in zip(names, matrix, strict=True)]
    write_rows(written[1], [corner, *names], table)
    return written


def _number(value: float) -> float | None:
    return None if value != value else value  # nan: no image to count
