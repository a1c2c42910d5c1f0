"""The table of uncertainty: tests trained checkpoints on their test set, on images from elsewhere and on corruptions.

    python benchmarks/uncertainty.py measure ROWS.csv "LRT:checkpoints/lenet_lrt/version_0/best.ckpt" ...
    python benchmarks/uncertainty.py table ROWS.csv

``measure`` adds a row for each checkpoint, under the name before the colon; one that ends in "mean weights" or "local
draws" is tested so. ``table`` prints the mean and spread over rows of one name.
"""

import json
import statistics
import sys
import time
from pathlib import Path

from rows import add, read, show_means

from bnn_lightning.cli import main
from bnn_lightning.training.checkpoints import KEY, read_checkpoint
from bnn_lightning.training.runs import Run

ELSEWHERE = {"MNIST": ("NotMNIST", "FashionMNIST"), "FashionMNIST": ("NotMNIST", "MNIST")}
WAYS = {"mean weights": "mean", "local draws": "local"}
METRICS = ("accuracy", "nll", "ece", "brier", "nll_scaled", "ece_scaled", "aurc")


def measure(rows: Path, named: list[str]) -> None:
    for word in named:
        name, _, path = word.partition(":")
        draws = next((["--model.draws", way] for ending, way in WAYS.items() if name.endswith(ending)), [])
        elsewhere = ELSEWHERE[read_checkpoint(path)[KEY]["data"]["name"]]
        start = time.monotonic()
        flags = ["--data.corruptions", "true", "--data.ood", f"[{', '.join(elsewhere)}]"]
        if main(["test", "--ckpt_path", path, *draws, *flags]):
            raise SystemExit(f"{path} could not be tested")
        written = Run.of_checkpoint(path).logs.glob(f"test_*_{Path(path).stem}*.json")
        found = json.loads(max(written, key=lambda file: file.stat().st_mtime).read_text())
        add(rows, row_of(name, found) | {"seconds": round(time.monotonic() - start)})


def row_of(name: str, found: dict) -> dict:
    """The numbers of a test that the table has."""
    way = next(iter(found["predictions"]))
    training = found["training"] or {}
    row = {"name": name, "data": found["data"], "checkpoint": found["checkpoint"], "prediction": way}
    row |= {metric: found["predictions"][way].get(metric) for metric in METRICS}
    row |= {f"{metric}_error": found["errors"][way][metric]["images"] for metric in ("accuracy", "nll", "ece")}
    row |= {key: training.get(key) for key in ("epoch", "elbo_per_n", "kl_per_n", "kl_weight")}
    row |= {"sigma_over_prior": found["sigma_over_prior"], "temperature": found["temperature"]}
    for other in ELSEWHERE[found["data"]]:
        for score in ("entropy", "tempered_entropy", "mutual_information"):
            row |= {f"{other}_{score}_{key}": value["value"] for key, value in found["ood"][other][score].items()}
    kinds = [values for kind, values in found["corruptions"].items() if kind != "clean"]
    for metric in ("accuracy", "nll", "ece"):
        row[f"corrupted_{metric}"] = statistics.mean(at[metric] for values in kinds for at in values.values())
    return row | {"marks": ", ".join(found["marks"])}


def table(rows: Path) -> None:
    by_name: dict[tuple[str, str], list[dict]] = {}
    for row in read(rows):
        by_name.setdefault((row["data"], row["name"]), []).append(row)
    for data, elsewhere in ELSEWHERE.items():
        rows_of_data = {name: found for (of, name), found in by_name.items() if of == data}
        if rows_of_data:
            own = [("accuracy", "accuracy, %", 100, 2), ("nll", "NLL", 1, 4), ("ece", "ECE", 1, 4)]
            own += [("brier", "Brier", 1, 4), ("nll_scaled", "NLL at T", 1, 4), ("ece_scaled", "ECE at T", 1, 4)]
            own += [("aurc", "AURC", 1, 5), ("elbo_per_n", "elbo/N", 1, 2), ("kl_per_n", "KL/N", 1, 2)]
            show_means(data, "runs", rows_of_data, [*own, ("sigma_over_prior", "sigma / prior", 1, 2)])
            away = []
            for other in elsewhere:
                away += [(f"{other}_entropy_auroc", f"{other}: AUROC", 1, 3), (f"{other}_entropy_aupr", "AUPR", 1, 3)]
                away += [(f"{other}_entropy_fpr95", "FPR95, %", 100, 1)]
                away += [(f"{other}_tempered_entropy_auroc", "AUROC, T = 3", 1, 3)]
                away += [(f"{other}_mutual_information_auroc", "AUROC, MI", 1, 3)]
            show_means(data, "runs", rows_of_data, [*away, ("corrupted_nll", "corrupted NLL", 1, 3)])


if __name__ == "__main__":
    command, file, *words = sys.argv[1:]
    if command == "measure":
        measure(Path(file), words)
    else:
        table(Path(file))
