"""Networks as .onnx files, which runtimes of many languages run: written by torch's exporter and onnxscript."""

import io
import json
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bnn_lightning.deployment.base import ExportFormat
from bnn_lightning.deployment.program import exported_program, output_names
from bnn_lightning.files import atomic_write
from bnn_lightning.wording import first_line

OPSET = 18
"""Of the operators: the one that torch's exporter writes, which runtimes of 2023 and later know."""

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_OUTPUT = "output."  # before the names of outputs until the graph is whole
_MOST_BYTES = 2**31 - 1  # of a protobuf message


@dataclass(frozen=True)
class Onnx(ExportFormat):
    """ONNX: any runtime of it computes the network, for batches of any size, without torch and without this package.

    Inputs and outputs have the names of the record and of the network's outputs. The record stands in the file's
    ``metadata_props``: an entry by name, texts as they are and everything else as JSON.

    Args:
        quantize: int8 stores the weights of linear layers and convolutions in 8 bits, and rounds their inputs to 8 bits
            when they are computed (onnxruntime's dynamic quantisation): smaller files, other numbers. null leaves them
            in float32.
    """

    ending = ".onnx"
    how_to_load = "onnxruntime.InferenceSession(FILE) runs it"

    quantize: Literal["int8"] | None = None

    def __post_init__(self) -> None:
        if self.quantize not in (None, "int8"):
            raise ValueError(f"quantize must be int8 or null, got {self.quantize}.")

    def write(self, net: nn.Module, path: Path, example: Tensor, record: Mapping[str, Any]) -> None:
        """See :class:`ExportFormat`.

        Raises:
            ImportError: when a library of the extra ``export`` is missing.
            ValueError: when torch.export, or the exporter, does not take the network, or the file would have 2 GB.
        """
        require_onnx()
        content = _model(net, example, record, self.quantize is not None)
        atomic_write(path, content)


def require_onnx() -> None:
    """Raises ImportError, in a sentence, when a library of the extra ``export`` is missing."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ImportError(
            f"ONNX needs {missing[0]}, which is not installed. Install it with: pip install 'bnn_lightning[export]'"
        )


def _model(net: nn.Module, example: Tensor, record: Mapping[str, Any], quantized: bool) -> bytes:
    import onnx

    program = exported_program(net, example)
    names = output_names(net, example)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of the exporter's own code
            written: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[str(record.get("input", {}).get("name", "inputs"))],
                output_names=[f"{_OUTPUT}{name}" for name in names],
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = first_line(error)
        raise ValueError(f"network must be one that torch's ONNX exporter takes, got an error: {reason}.") from error
    model = written.model_proto
    _strip(model.graph)
    for function in model.functions:
        _strip(function)
    _name_outputs(model.graph, names)
    _name_batch(model.graph)
    if quantized:
        model = _quantized(model)
    entries = dict(record) | {"opset": OPSET, "quantize": "int8" if quantized else None}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in entries.items()}
    onnx.helper.set_model_props(model, texts)
    if model.ByteSize() > _MOST_BYTES:
        raise ValueError(f"what must be less: as ONNX it has {model.ByteSize():,} bytes, and 2 GB is the most.")
    return model.SerializeToString()


def _strip(graph: Any) -> None:
    """Takes away what the exporter notes beside nodes and values: lines of source code and paths of this machine."""
    for part in (*graph.node, *graph.value_info, *getattr(graph, "initializer", ())):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:]


def _name_outputs(graph: Any, names: list[str]) -> None:
    """Calls outputs by their names alone, and otherwise what the exporter calls so within the graph, such as mean."""
    new = {name: f"inner.{name}" for name in names} | {f"{_OUTPUT}{name}": name for name in names}
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in (*graph.output, *graph.value_info, *graph.initializer):
        value.name = new.get(value.name, value.name)


def _name_batch(graph: Any) -> None:
    """Calls the first axis of inputs and outputs ``batch``, which the exporter calls s77 or the like."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
                dim.dim_param = "batch"


def _quantized(model: Any) -> Any:
    """The same with linear layers and convolutions in 8 bits, by onnxruntime, which works on files."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The exporter has inferred shapes and folded constants; without the mark onnxruntime asks for it to be done.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "quantized.onnx"
        # Convolutions of onnxruntime take weights without a sign alone.
        quantize_dynamic(model, file, weight_type=QuantType.QUInt8)
        return onnx.load(file)
