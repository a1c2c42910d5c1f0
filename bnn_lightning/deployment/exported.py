"""An .onnx file of bnn export, read back: its metadata, and its graph as what a Predictor asks for summaries."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnn_lightning.checkpoints.record import CheckpointError
from bnn_lightning.deployment.inputs import GraphInput
from bnn_lightning.deployment.metadata import FORMAT_VERSION
from bnn_lightning.deployment.onnx import require_onnx
from bnn_lightning.likelihoods import Categorical, GaussianLikelihood, Likelihood, StudentT

_LIKELIHOODS: dict[str, type[Likelihood]] = {
    kind.__name__: kind for kind in (Categorical, GaussianLikelihood, StudentT)
}


class ExportedOnnx:
    """A graph of ``bnn export --format onnx``, which onnxruntime computes on the CPU; nothing in the file can run.

    Args:
        path: the file.

    Raises:
        ImportError: when onnxruntime is missing.
        CheckpointError: when it is no such file, or one of a later release.
    """

    def __init__(self, path: Path):
        require_onnx()
        import onnxruntime

        if not path.is_file():
            raise CheckpointError(f"there is no file {path}.")
        try:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            entries = self._session.get_modelmeta().custom_metadata_map
            version = int(entries.get("format_version", 0))
        except Exception as error:  # a damaged file can raise nearly anything
            reason = (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")
            raise CheckpointError(f"{path} cannot be read as an ONNX file ({reason}).") from None
        if version not in range(1, FORMAT_VERSION + 1):
            raise CheckpointError(f"{path} holds no graph that bnn export --what of this release or an earlier wrote.")
        self.data: Mapping[str, Any] = json.loads(entries["data"])
        """How examples were prepared, and what the classes are called; as of a checkpoint."""
        self.draws: Any = entries["draws"]
        self.samples = int(entries["samples"])
        self.input = GraphInput.of(self.data)
        self.likelihood = _likelihood_of(json.loads(entries["likelihood"]), path).for_data(self.data)
        calibration, kind = json.loads(entries["calibration"]), self.likelihood.calibration_type
        self.calibration = None if calibration is None or kind is None else kind(**_tensors(calibration))
        """Of the graph's samples, or None."""
        self._names = [output.name for output in self._session.get_outputs()]

    def summary(self, x: Tensor) -> dict[str, Tensor]:
        """What the graph gives for examples ``(batch, ...)`` that are prepared for a network, by name."""
        given = self.input.raw(x).contiguous().numpy()
        outputs = self._session.run(self._names, {self.input.name: given})
        return {name: torch.from_numpy(values) for name, values in zip(self._names, outputs, strict=True)}


def _likelihood_of(said: Mapping[str, Any], path: Path) -> Likelihood:
    """One of this package's: a class of somebody's own is not imported because a file names it."""
    kind = _LIKELIHOODS.get(said["name"])
    if kind is None:
        raise CheckpointError(f"{path} is under {said['name']}, which no Predictor reads; onnxruntime runs it.")
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in said["settings"].items() if name in known})


def _tensors(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: torch.tensor(value, dtype=torch.bool if value and isinstance(value[0], bool) else torch.float64)
        if isinstance(value, list)
        else value
        for name, value in record.items()
    }
