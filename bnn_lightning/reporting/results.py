"""Results as plain values, and as JSON and CSV files."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bnn_lightning.checkpoints.summary import TrainingSummary
from bnn_lightning.compression.sparsity import LayerSparsity
from bnn_lightning.evaluation.metrics import Estimate
from bnn_lightning.evaluation.suite import Evaluation
from bnn_lightning.files import atomic_write, locked, write_rows

SCHEMA_VERSION = 2
"""Of the JSON files of an evaluation; ``results.schema.json`` beside this file says what they hold."""


@dataclass(frozen=True)
class Source:
    """What an evaluation is of.

    Args:
        checkpoint: the file, as it can be typed.
        network, method, inference, likelihood: names of their classes; the method of a deterministic network is
            ``deterministic``.
        data: the name of the images.
        images: how many there are.
        draws: how samples were drawn: weights, local, mean or moments.
        samples: how many.
        members: networks in the ensemble; 1 where it is none.
        notes: on the images.
    """

    checkpoint: str
    network: str
    method: str
    inference: str
    likelihood: str
    data: str
    images: int
    draws: str
    samples: int
    members: int
    notes: Sequence[str] = ()


def evaluation(
    source: Source,
    predictions: Mapping[str, Mapping[str, Estimate]],
    summary: TrainingSummary | None,
) -> dict[str, Any]:
    """An evaluation in plain values: metrics of each way of predicting, the training behind them, and caveats.

    Args:
        source: what was evaluated.
        predictions: by way of predicting: ``samples``, ``one_sample``, ``mean_weights``, ``kept_weights``.
        summary: of the training.
    """
    facts = asdict(source)
    sampling = {name: facts.pop(name) for name in ("draws", "samples", "members")}
    notes = facts.pop("notes")
    return {
        "schema_version": SCHEMA_VERSION,
        **facts,
        "sampling": sampling,
        "predictions": {
            way: {name: estimate.value for name, estimate in row.items()} for way, row in predictions.items()
        },
        "errors": {
            way: {
                name: {"images": estimate.image_error, "draws": estimate.draw_error} for name, estimate in row.items()
            }
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
        "caveats": (summary.caveats if summary else []) + list(notes),
    }


def ood_and_corruption_results(evaluation: Evaluation) -> dict[str, Any]:
    """What calibration scales by, OOD detection and corruptions in plain values."""
    scale = {} if evaluation.std_scale is None else {"std_scale": evaluation.std_scale}
    return scale | {
        "temperature": evaluation.temperature,
        "ood": {
            name: {
                score: {metric: asdict(estimate) for metric, estimate in row.items()} for score, row in scores.items()
            }
            for name, scores in evaluation.ood.items()
        },
        "corruptions": evaluation.corruptions,
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


def write_sparsity(folder: Path, name: str, sparsity: Mapping[str, Any]) -> Path:
    """``name.csv`` with a row for each layer and one for all of them; the JSON of the evaluation has it too."""
    path = folder / f"{name}.csv"
    rows = [dict(layer) for layer in sparsity["layers"]]
    total = {"layer": "all"} | {key: sparsity[key] for key in ("weights", "kept", "sparsity", "compression")}
    columns = [*rows[0], "compression", "compression_with_biases"]
    write_rows(path, columns, [*rows, total | {"compression_with_biases": sparsity["compression_with_biases"]}])
    return path


def write_table(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """``name.json`` and ``name.csv`` of the same rows."""
    as_json, as_csv = folder / f"{name}.json", folder / f"{name}.csv"
    atomic_write(as_json, _json(list(rows)).encode())
    write_rows(as_csv, list(rows[0]), rows)
    return [as_json, as_csv]


def write_evaluation(folder: Path, name: str, results: Mapping[str, Any]) -> list[Path]:
    """``name.json`` with everything, ``name.csv`` with a row for each way of predicting, and where there are such
    results ``name_ood.csv`` and ``name_corruptions.csv``.
    """
    written = [folder / f"{name}.json", folder / f"{name}.csv"]
    atomic_write(written[0], _json(results).encode())
    facts = ("checkpoint", "network", "method", "inference", "likelihood", "data", "images")
    common = {key: results[key] for key in facts} | results["sampling"] | (results["training"] or {})
    common |= {name: results.get(name) for name in ("temperature", "sigma_over_prior")}
    common |= {"caveats": ", ".join(results["caveats"])}
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
    for ending, table in (("ood", ood), ("corruptions", corrupted)):
        if table:
            written.append(folder / f"{name}_{ending}.csv")
            write_rows(written[-1], list(table[0]), table)
    return written


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
