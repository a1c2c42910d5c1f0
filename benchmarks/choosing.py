"""Prints the tables of docs/choosing.md: the map of methods, a data set at a time, by NLL.

python benchmarks/choosing.py [results/methods.csv]
"""

import statistics
import sys
from pathlib import Path

from rows import show

from bnn_lightning.checkpoints.summary import NOT_CONVERGED
from bnn_lightning.studies import rows
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.lines import Line, cell_text, report_lines

ROOT = Path(__file__).parents[1]
FARTHER = {"MNIST": ("FashionMNIST", "Fashion-MNIST"), "Fashion-MNIST": ("MNIST", "MNIST")}  # the set beside notMNIST


def table(path: Path) -> None:
    study = Study.read(ROOT / "configs" / "studies" / "methods.yaml")
    lines = [line for line in report_lines(study, rows.read(path)) if line.runs]
    # Both data sets have as many images of the same size. Later runs shared their cores with more than one other.
    times = {line.cell.axes["method"]: line.values("seconds")[0] for line in lines if line.cell.axes["data"] == "MNIST"}
    times = {method: seconds / times["deterministic"] for method, seconds in times.items()}
    for data, (other, title) in FARTHER.items():
        of_data = {line.cell.axes["method"]: line for line in lines if line.cell.axes["data"] == data}
        heads = ["runs", "accuracy, %", "NLL", "ECE", "NLL, corrupted", "elbo/N"]
        heads += [f"AUROC {name} by entropy; MI" for name in ("notMNIST", title)] + ["times the twin's training", ""]
        by_nll = sorted(of_data, key=lambda method: statistics.mean(of_data[method].values("nll")))
        show(data, heads, [[method, *_cells(of_data[method], other, times[method])] for method in by_nll])


def _cells(line: Line, other: str, time: float) -> list[str]:
    cells = [str(len(line.runs)), _mean(line, "accuracy", 100, 2), cell_text(line, "nll"), _mean(line, "ece", 1, 4)]
    cells += [_mean(line, "corrupted_nll", 1, 2), _mean(line, "elbo_per_n", 1, 2)]
    for name in ("NotMNIST", other):
        cells.append("; ".join(_mean(line, f"auroc/{by}/{name}", 1, 3) for by in ("entropy", "mutual_information")))
    return [*cells, f"{time:.1f}", NOT_CONVERGED if NOT_CONVERGED in line.caveats else ""]


def _mean(line: Line, column: str, scale: float, digits: int) -> str:
    values = line.values(column)
    return f"{scale * statistics.mean(values):.{digits}f}" if values else "-"


if __name__ == "__main__":
    table(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results" / "methods.csv")
