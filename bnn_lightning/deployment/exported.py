"""Files of bnn export read back: their metadata, and their graphs as what a Predictor asks for summaries."""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnn_lightning.checkpoints.record import CheckpointError
from bnn_lightning.deployment.archive import RECORD, Archive
from bnn_lightning.deployment.inputs import GraphInput
from bnn_lightning.deployment.interpreter import Program, UnknownOperatorError
from bnn_lightning.deployment.metadata import FORMAT_VERSION
from bnn_lightning.deployment.onnx import require_onnx
from bnn_lightning.likelihoods import Categorical, GaussianLikelihood, Likelihood, StudentT
from bnn_lightning.wording import first_line

_LIKELIHOODS: dict[str, type[Likelihood]] = {
    kind.__name__: kind for kind in (Categorical, GaussianLikelihood, StudentT)
}


class Exported(ABC):
    """A graph of ``bnn export --what``, on the CPU, and what its file says of it; nothing in the file can run.

    Args:
        path: the file.
        said: its metadata, see :func:`bnn_lightning.deployment.metadata.metadata`.

    Raises:
        CheckpointError: when it is none, or one of a later release.
    """

    def __init__(self, path: Path, said: Mapping[str, Any]):
        if said.get("format_version") not in range(1, FORMAT_VERSION + 1):
            raise CheckpointError(f"{path} holds no graph that bnn export --what of this release or an earlier wrote.")
        self.data: Mapping[str, Any] = said["data"]
        """How examples were prepared, and what the classes are called; as of a checkpoint."""
        self.draws: Any = said["draws"]
        self.samples = int(said["samples"])
        self.names: list[str] = list(said["outputs"])
        """Of the outputs, in their order."""
        self.input = GraphInput.of(self.data)
        self.likelihood = _likelihood_of(said["likelihood"], path).for_data(self.data)
        calibration, kind = said["calibration"], self.likelihood.calibration_type
        self.calibration = None if calibration is None or kind is None else kind(**_tensors(calibration))
        """Of the graph's samples, or None."""

    def summary(self, x: Tensor) -> dict[str, Tensor]:
        """What the graph gives for examples ``(batch, ...)`` that are prepared for a network, by name."""
        return dict(zip(self.names, self._outputs(self.input.raw(x).contiguous()), strict=True))

    @abstractmethod
    def _outputs(self, given: Tensor) -> list[Tensor]:
        """The outputs, in their order, for inputs as the graph takes them."""


class ExportedOnnx(Exported):
    """An .onnx file, which onnxruntime computes.

    Args:
        path: the file.

    Raises:
        ImportError: when onnxruntime is missing.
        CheckpointError: when it is no such file, or one of a later release.
    """

    def __init__(self, path: Path):
        require_onnx()
        import onnxruntime

        try:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            entries = self._session.get_modelmeta().custom_metadata_map
            # Only what export wrote is JSON.
            said = {name: _value(text) for name, text in entries.items()} if "format_version" in entries else {}
        except Exception as error:  # a damaged file can raise nearly anything
            raise _unreadable(path, "an ONNX file", error) from None
        super().__init__(path, said)

    def _outputs(self, given: Tensor) -> list[Tensor]:
        outputs = self._session.run(self.names, {self.input.name: given.numpy()})
        return [torch.from_numpy(values) for values in outputs]


class ExportedPt2(Exported):
    """A .pt2 file, whose graph :class:`bnn_lightning.deployment.interpreter.Program` computes.

    Args:
        path: the file.

    Raises:
        CheckpointError: when it is no such file, one of a later release, or has operators that are not known here.
    """

    def __init__(self, path: Path):
        try:
            with Archive(path) as archive:
                super().__init__(path, archive.json(f"extra/{RECORD}"))
                self._program = Program(archive)
        except CheckpointError:
            raise
        except UnknownOperatorError as error:
            raise CheckpointError(
                f"{path} needs {error}, which no Predictor computes; torch.export.load(FILE).module() loads it, but is "
                "for your own files alone: such a file can run any code."
            ) from None
        except Exception as error:  # likewise
            raise _unreadable(path, "an exported graph", error) from None

    def _outputs(self, given: Tensor) -> list[Tensor]:
        return self._program(given)


_ENDINGS: dict[str, type[ExportedOnnx | ExportedPt2]] = {".onnx": ExportedOnnx, ".pt2": ExportedPt2}


def is_export(path: Path) -> bool:
    """Whether a file's name ends as that of an export does."""
    return path.suffix in _ENDINGS


def read_export(path: Path) -> Exported:
    """The graph in a file, by the ending of its name.

    Raises:
        ImportError: when a library that computes it is missing.
        CheckpointError: when it cannot be used.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}.")
    return _ENDINGS[path.suffix](path)


def _unreadable(path: Path, what: str, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read as {what} ({first_line(error)}).")


def _value(text: str) -> Any:
    """A text as it is, and everything else, which stands there as JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _likelihood_of(said: Mapping[str, Any], path: Path) -> Likelihood:
    """One of this package's: a class of somebody's own is not imported because a file names it."""
    kind = _LIKELIHOODS.get(said["name"])
    if kind is None:
        raise CheckpointError(f"{path} is under {said['name']}, which no Predictor reads; other programs run it.")
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in said["settings"].items() if name in known})


def _tensors(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: torch.tensor(value, dtype=torch.bool if value and isinstance(value[0], bool) else torch.float64)
        if isinstance(value, list)
        else value
        for name, value in record.items()
    }
