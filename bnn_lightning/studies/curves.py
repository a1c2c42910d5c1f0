"""The learning curves of an acquisition study: accuracy and NLL against the number of labels."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bnn_lightning.reporting.figures.curves import Curve
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.lines import Line, standard_deviation

LEVELS = (90, 95)  # accuracies, in percent
COLUMNS = ("cell", "seed", "labels", "accuracy", "nll")
ABOUT = (
    "Labels: the first number at which the median run has the accuracy. Accuracy and NLL at a number of labels: mean ± "
    "standard deviation over seeds."
)


def rounds_of(row: Mapping[str, Any]) -> Iterator[tuple[int, float, float]]:
    """Labels, accuracy (from 0 to 1) and NLL of each round of a run."""
    columns = [[float(word) for word in row[f"{name}_by_round"].split()] for name in ("labels", "accuracy", "nll")]
    for labels, accuracy, nll in zip(*columns, strict=True):
        yield int(labels), accuracy, nll


def curve_of(line: Line) -> dict[int, tuple[list[float], list[float]]]:
    """The accuracies and NLLs of a cell's runs at each number of labels that all of them have come to."""
    runs = [{labels: values for labels, *values in rounds_of(row)} for row in line.runs]
    common = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    return {labels: ([run[labels][0] for run in runs], [run[labels][1] for run in runs]) for labels in common}


def first_labels(line: Line, percent: float) -> int | None:
    """The first number of labels at which the median of the runs has that accuracy; None where none has."""
    curve = curve_of(line)
    return next((n for n, (accuracies, _) in curve.items() if 100 * statistics.median(accuracies) >= percent), None)


def table(study: Study, lines: Sequence[Line]) -> list[list[str]]:
    """A head and a line for each cell: labels needed, then accuracy and NLL at the numbers of labels of ``at``."""
    heads = [*study.axes, *(f"labels to {level} %" for level in LEVELS)]
    heads += [f"{what} at {labels}" for labels in study.at for what in ("accuracy", "NLL")]
    body = []
    for line in lines:
        curve = curve_of(line)
        cells = [line.cell.axes.get(axis, "") for axis in study.axes]
        for level in LEVELS:
            first = first_labels(line, level)
            cells.append("" if not curve else f"not by {max(curve)}" if first is None else str(first))
        for labels in study.at:
            accuracies, nlls = curve.get(labels, ([], []))
            cells += [_text([100 * value for value in accuracies], 1), _text(nlls, 3)]
        body.append(cells)
    return [heads, *body]


def of_lines(lines: Sequence[Line]) -> list[Curve]:
    """The curves of all cells that have runs, for the figure: named by the last axis, those of the others together."""
    curves = []
    for line in lines:
        if curve := curve_of(line):
            accuracies = [[100 * value for value in values] for values, _ in curve.values()]
            *row, name = line.cell.axes.values() or [line.cell.name]
            nlls = [values for _, values in curve.values()]
            curves.append(Curve(name, list(curve), accuracies, nlls, ", ".join(row)))
    return curves


def rows_of(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """A row for each round of each run."""
    return [
        dict(zip(COLUMNS, (line.cell.name, row["seed"], *values), strict=True))
        for line in lines
        for row in line.runs
        for values in rounds_of(row)
    ]


def _text(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    deviation = f" ± {standard_deviation(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"
