"""Results as plain values, and as JSON and CSV files."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from bnn_lightning.compression.sparsity import LayerSparsity
from bnn_lightning.evaluation.metrics import Estimate
from bnn_lightning.evaluation.suite import Evaluation
from bnn_lightning.files import locked, write_rows, write_whole
from bnn_lightning.training.progress import TrainingSummary


def evaluation(
    predictions: Mapping[str, Mapping[str, Estimate]],
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
        "predictions": {way: {name: one.value for name, one in row.items()} for way, row in predictions.items()},
        "errors": {
            way: {name: {"images": one.image_error, "draws": one.draw_error} for name, one in row.items()}
            for way, row in predictions.items()
        },
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


def beyond_the_test_set(found: Evaluation) -> dict[str, Any]:
    """Temperature, OOD detection and corruptions in plain values."""
    return {
        "temperature": found.temperature,
        "ood": {
            name: {score: {metric: asdict(one) for metric, one in row.items()} for score, row in by_score.items()}
            for name, by_score in found.ood.items()
        },
        "corruptions": found.corruptions,
    }


def sparsity(layers: Sequence[LayerSparsity], ratios: tuple[float, float], rule: str) -> dict[str, Any]:
    """Sparsity in plain values: each layer's, the whole network's, the compression ratio without and with biases.

    ``rule`` says which weights are kept.
    """
    weights, kept = sum(layer.weights for layer in layers), sum(layer.kept for layer in layers)
    return {
        "kept_are": rule,
        "layers": [asdict(layer) | {"sparsity": layer.sparsity} for layer in layers],
        "weights": weights,
        "kept": kept,
        "sparsity": 1 - kept / weights,
        "compression": ratios[0],
        "compression_with_biases": ratios[1],
    }


def write_sparsity(folder: Path, name: str, found: Mapping[str, Any]) -> Path:
    """``name.csv`` with a row for each layer and one for all of them; the JSON of the evaluation has it too."""
    path = folder / f"{name}.csv"
    rows = [dict(layer) for layer in found["layers"]]
    total = {"layer": "all"} | {key: found[key] for key in ("weights", "kept", "sparsity", "compression")}
    columns = [*rows[0], "compression", "compression_with_biases"]
    write_rows(path, columns, [*rows, total | {"compression_with_biases": found["compression_with_biases"]}])
    return path


def write_table(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """``name.json`` and ``name.csv`` of the same rows."""
    as_json, as_csv = folder / f"{name}.json", folder / f"{name}.csv"
    write_whole(as_json, _json(list(rows)).encode())
    write_rows(as_csv, list(rows[0]), rows)
    return [as_json, as_csv]


def write_evaluation(folder: Path, name: str, results: Mapping[str, Any]) -> list[Path]:
    """``name.json`` with everything, ``name.csv`` with a row for each way of predicting, and where there are such
    results ``name_ood.csv`` and ``name_corruptions.csv``.
    """
    written = [folder / f"{name}.json", folder / f"{name}.csv"]
    write_whole(written[0], _json(results).encode())
    common = {key: results[key] for key in ("checkpoint", "method", "data", "images")} | (results["training"] or {})
    common |= {name: results.get(name) for name in ("temperature", "sigma_over_prior")}
    common |= {"marks": ", ".join(results["marks"])}
    rows = []
    for way, values in results["predictions"].items():
        errors = results["errors"][way]
        with_errors = {f"{key}_{of[:-1]}_error": errors[key][of] for key in values for of in ("images", "draws")}
        rows.append({"prediction": way} | values | with_errors | common)
    write_rows(written[1], list(rows[0]), rows)
    ood = [
        {"ood": other, "score": score}
        | {f"{metric}{ending}": row[metric][part] for metric in row for ending, part in _WITH_ERROR}
        for other, by_score in results.get("ood", {}).items()
        for score, row in by_score.items()
    ]
    corrupted = [
        {"corruption": kind, "severity": severity} | values
        for kind, by_severity in results.get("corruptions", {}).items()
        for severity, values in by_severity.items()
    ]
    for ending, found in (("ood", ood), ("corruptions", corrupted)):
        if found:
            written.append(folder / f"{name}_{ending}.csv")
            write_rows(written[-1], list(found[0]), found)
    return written


def write_predictions(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """``predictions.csv``, one row for each picture; ``predictions_1.csv`` and so on where there are some already."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "error"))
    with free_name(folder, "predictions") as name:
        path = folder / f"{name}.csv"
        write_rows(path, [*columns, "error"], rows)
    return path


@contextmanager
def free_name(folder: Path, name: str) -> Iterator[str]:
    """``name``, or with the first number that makes it one under which ``folder`` has no table yet.

    No other process is given it while the ``with`` lasts, at whose end the table is there.
    """
    names = (name if number == 0 else f"{name}_{number}" for number in count())
    with locked(folder / ".tables.lock"):
        yield next(name for name in names if not (folder / f"{name}.csv").exists())


def _json(value: Any) -> str:
    """JSON, with null for the infinities that it has no word for."""

    def finite(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {key: finite(inner) for key, inner in part.items()}
        if isinstance(part, list | tuple):
            return [finite(inner) for inner in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(finite(value), indent=2) + "\n"


_WITH_ERROR = (("", "value"), ("_image_error", "image_error"))
