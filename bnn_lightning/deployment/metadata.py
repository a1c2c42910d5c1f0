"""A checkpoint's graph written to a file; and what the file says of itself in plain values, the metadata."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bnn_lightning
from bnn_lightning.checkpoints.parts import Trained
from bnn_lightning.checkpoints.record import Record
from bnn_lightning.deployment.base import ExportFormat
from bnn_lightning.deployment.graph import PredictiveGraph, predictive_graph
from bnn_lightning.evaluation.draws import pooled_samples
from bnn_lightning.likelihoods.base import Likelihood

FORMAT_VERSION = 1


def export_graph(record: Record, trained: Trained, what: str, path: Path, file_format: ExportFormat) -> dict[str, Any]:
    """Writes the graph of a checkpoint's predictive to a file; gives its metadata, which stand in the file.

    Args:
        record: of the checkpoint.
        trained: what it holds, ``Trained.of(record)``.
        what: ``moments``, ``mean``, ``samples:T`` or ``ensemble``, as ``bnn export --what`` (docs/deploying.md).
        path: the file to write.
        file_format: of the file.

    Raises:
        ValueError: when ``what`` is not possible for this network, or the format does not take it.
        ImportError: when a library of the format is missing.
        UnwritableError: when the file cannot be written.
    """
    graph = predictive_graph(trained, record.data or {}, what)
    said = metadata(record, trained, graph, what)
    file_format.write(graph, path, graph.input.example(), said)
    return said


def metadata(record: Record, trained: Trained, graph: PredictiveGraph, what: str) -> dict[str, Any]:
    """The entries, all of them plain values that JSON can hold.

    ``format_version``, ``writer`` and ``torch``; ``checkpoint`` (the file's name), ``network``, ``method``,
    ``likelihood`` with its settings; ``what``, ``draws`` and ``samples``, as :func:`predictive_graph` has them, and
    ``members``; ``input`` and ``outputs``, with the shapes of an example; ``data``, how examples were prepared (image
    size, channels, mean, std, or columns); ``class_names``; ``temperature`` and ``calibration``, null where there is
    none; ``caveats``, what must be known beside every result.

    Args:
        record: of the checkpoint.
        trained: what it holds.
        graph: what was made of it.
        what: as it was asked for.
    """
    model, data = (record.config or {}).get("model", {}), record.data or {}
    with torch.no_grad():
        outputs = graph(graph.input.example())
    return {
        "format_version": FORMAT_VERSION,
        "writer": f"bnn_lightning {bnn_lightning.__version__}",
        "torch": str(torch.__version__),
        "checkpoint": record.path.name,
        "network": _name_of(model.get("network")),
        "method": _name_of(model.get("method")),
        "likelihood": _likelihood(trained.likelihood),
        "what": what,
        "draws": graph.draws,
        "samples": graph.samples,
        "members": record.members,
        "input": {
            "name": graph.input.name,
            "dtype": str(graph.input.dtype).removeprefix("torch."),
            "shape": ["batch", *graph.input.shape],
        },
        "outputs": {name: ["batch", *values.shape[1:]] for name, values in outputs.items()},
        "data": data,
        "class_names": list(data.get("class_names", ())),
        "temperature": getattr(graph.calibration, "temperature", None),
        "calibration": None if graph.calibration is None else _plain(graph.calibration.record()),
        "caveats": _caveats(record, trained, graph),
    }


def _name_of(part: Any) -> str | None:
    """The class of a part of a config, such as LRT."""
    path = part.get("class_path") if isinstance(part, Mapping) else part
    return None if path is None else str(path).rpartition(".")[2]


def _likelihood(likelihood: Likelihood) -> dict[str, Any]:
    settings: dict[str, Any] = dataclasses.asdict(likelihood) if dataclasses.is_dataclass(likelihood) else {}
    return {"name": type(likelihood).__name__, "settings": settings}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}


def _caveats(record: Record, trained: Trained, graph: PredictiveGraph) -> list[str]:
    caveats = list(record.training.caveats) if record.training is not None else []
    if trained.likelihood.calibration_type is not None and graph.calibration is None:
        caveats.append(f"not calibrated for {graph.draws}")
    then = pooled_samples(trained.sampling.test_samples, record.members)
    if graph.calibration is not None and graph.draws == "weights" and then != graph.samples:
        caveats.append(f"calibrated with {then} samples")
    return caveats + list((record.data or {}).get("notes", ()))
