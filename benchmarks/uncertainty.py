"""The table of uncertainty: tests checkpoints on their test set, out-of-distribution images and corrupted images.

    python benchmarks/uncertainty.py measure ROWS.csv "LRT:checkpoints/lenet_lrt/version_0/best.ckpt" ...
    python benchmarks/uncertainty.py table ROWS.csv

``measure`` adds a row for each checkpoint, with the name before the colon; a name that ends in "mean weights" or "local
draws" chooses that kind of prediction. ``table`` prints mean and standard deviation over the rows of each name.
"""

import json
import statistics
import sys
import time
from pathlib import Path

from rows import add, read, show_means

from bnn_lightning.checkpoints.record import Record
from bnn_lightning.cli import main
from bnn_lightning.reporting.cells import title_of
from bnn_lightning.training.runs import Run

OOD_SETS = {"MNIST": ("NotMNIST", "FashionMNIST"), "FashionMNIST": ("NotMNIST", "MNIST")}
DRAWS = {"mean weights": "mean", "local draws": "local"}
METRICS = ("accuracy", "nll", "ece", "brier", "nll_scaled", "ece_scaled", "aurc")


def measure(rows: Path, named: list[str]) -> None:
    for argument in named:
        name, _, path = argument.partition(":")
        draws = next((["--model.sampling.draws", kind] for ending, kind in DRAWS.items() if name.endswith(ending)), [])
        ood_sets = OOD_SETS[Record.read(path).data["name"]]
        start = time.monotonic()
        flags = ["--data.corruptions", "true", "--data.ood", f"[{', '.join(ood_sets)}]"]
        if main(["test", "--ckpt_path", path, *draws, *flags]):
            raise SystemExit(f"{path} could not be tested")
        files = Run.from_checkpoint(path).logs.glob(f"test_*_{Path(path).stem}*.json")
        results = json.loads(max(files, key=lambda file: file.stat().st_mtime).read_text())
        add(rows, row_of(name, results) | {"seconds": round(time.monotonic() - start)})


def row_of(name: str, results: dict) -> dict:
    """The numbers of a test's results that the table shows."""
    prediction = title_of("samples", results["sampling"], results["method"])
    training = results["training"] or {}
    row = {"name": name, "data": results["data"], "checkpoint": results["checkpoint"], "prediction": prediction}
    row |= {metric: results["predictions"]["samples"].get(metric) for metric in METRICS}
    row |= {f"{metric}_error": results["errors"]["samples"][metric]["images"] for metric in ("accuracy", "nll", "ece")}
    row |= {key: training.get(key) for key in ("epoch", "elbo_per_n", "kl_per_n", "kl_weight")}
    row |= {"sigma_over_prior": results["sigma_over_prior"], "temperature": results["temperature"]}
    for other in OOD_SETS[results["data"]]:
        for score in ("entropy", "tempered_entropy", "mutual_information"):
            row |= {f"{other}_{score}_{key}": value["value"] for key, value in results["ood"][other][score].items()}
    kinds = [by_severity for kind, by_severity in results["corruptions"].items() if kind != "clean"]
    for metric in ("accuracy", "nll", "ece"):
        row[f"corrupted_{metric}"] = statistics.mean(
            measured[metric] for by_severity in kinds for measured in by_severity.values()
        )
    return row | {"caveats": ", ".join(results["caveats"])}


def table(rows: Path) -> None:
    by_name: dict[tuple[str, str], list[dict]] = {}
    for row in read(rows):
        by_name.setdefault((row["data"], row["name"]), []).append(row)
    for data, ood_sets in OOD_SETS.items():
        rows_of_data = {name: of_name for (tested_on, name), of_name in by_name.items() if tested_on == data}
        if rows_of_data:
            inside = [("accuracy", "accuracy, %", 100, 2), ("nll", "NLL", 1, 4), ("ece", "ECE", 1, 4)]
            inside += [("brier", "Brier", 1, 4), ("nll_scaled", "NLL at T", 1, 4), ("ece_scaled", "ECE at T", 1, 4)]
            inside += [("aurc", "AURC", 1, 5), ("elbo_per_n", "elbo/N", 1, 2), ("kl_per_n", "KL/N", 1, 2)]
            show_means(data, "runs", rows_of_data, [*inside, ("sigma_over_prior", "sigma / prior", 1, 2)])
            outside = []
            for other in ood_sets:
                outside += [
                    (f"{other}_entropy_auroc", f"{other}: AUROC", 1, 3),
                    (f"{other}_entropy_aupr", "AUPR", 1, 3),
                ]
                outside += [(f"{other}_entropy_fpr95", "FPR95, %", 100, 1)]
                outside += [(f"{other}_tempered_entropy_auroc", "AUROC, T = 3", 1, 3)]
                outside += [(f"{other}_mutual_information_auroc", "AUROC, MI", 1, 3)]
            show_means(data, "runs", rows_of_data, [*outside, ("corrupted_nll", "corrupted NLL", 1, 3)])


if __name__ == "__main__":
    command, file, *words = sys.argv[1:]
    if command == "measure":
        measure(Path(file), words)
    else:
        table(Path(file))
