"""Networks as .pt2 files: written for torch.export.load, and read back without running what is in them."""

import io
import json
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.compression.shrink import ELEMENTWISE, POOLING, WEIGHTED, Select
from bnn_lightning.core.conversion import children_in_order
from bnn_lightning.deployment.base import ExportFormat
from bnn_lightning.files import atomic_write


@dataclass(frozen=True)
class Pt2(ExportFormat):
    """torch's own: ``torch.export.load(path).module()`` is the network, for any batch size.

    The record is in the file as ``bnn_lightning.json``, beside the layers of a chain.
    """

    ending = ".pt2"
    how_to_load = "torch.export.load(FILE).module() loads it"

    def write(self, net: nn.Module, path: Path, example: Tensor, record: Mapping[str, Any]) -> None:
        batch = torch.export.Dim("batch")
        # The file holds the example, with the whole memory that it is a part of.
        program = torch.export.export(net.eval(), (example.clone(),), dynamic_shapes=({0: batch},))
        content = io.BytesIO()
        with warnings.catch_warnings():
            # Weights in channels_last memory make torch 2.14 warn; they are whole in the file all the same.
            warnings.filterwarnings("ignore", "No complete tensor found")
            text = json.dumps(dict(record) | {"layers": _described(net)}, indent=2)
            torch.export.save(program, content, extra_files={_RECORD: text})
        atomic_write(path, content.getbuffer())


def load_dense(path: str | Path) -> nn.Sequential:
    """The network in a file of :class:`Pt2`, without running anything that a stranger may have put into it.

    ``torch.export.load`` unpickles some parts of such a file and evaluates others, which can run any code: keep it for
    files of your own. Here the layers are built from what ``bnn_lightning.json`` says of them, if they are of known
    kinds, and filled with the numbers of ``data/weights``; nothing else is looked at.

    Raises:
        ValueError: when the file cannot be read, or is not of a chain of known layers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].partition("/")[0]
            layers = json.loads(archive.read(f"{root}/extra/{_RECORD}"))["layers"]
            weights = json.loads(archive.read(f"{root}/data/weights/model_weights_config.json"))["config"]
            net = nn.Sequential(OrderedDict((layer["name"], _built(layer)) for layer in layers))
            values = {
                name: _tensor(entry, archive.read(f"{root}/data/weights/{entry['path_name']}"))
                for name, entry in weights.items()
            }
        net.load_state_dict(values)
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as an exported network ({reason}).") from None
    return net.eval()


_RECORD = "bnn_lightning.json"
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (*WEIGHTED, *ELEMENTWISE, *POOLING, nn.Flatten, Select)}
_DTYPES = {5: torch.int64, 7: torch.float32, 8: torch.float64}  # in torch's numbering of exported types


def _described(net: nn.Module) -> list[dict[str, Any]] | None:
    """Names, kinds and settings of the layers of a chain; None for any other network."""
    layers = []
    for name, module in children_in_order(net):
        settings = {key: getattr(module, key, None) for key in signature(type(module).__init__).parameters}
        if "bias" in settings:
            settings["bias"] = settings["bias"] is not None
        if isinstance(module, Select):
            settings["indices"] = len(module.indices)
        plain = {key: value for key, value in settings.items() if value is not None}
        layers.append({"name": name, "kind": type(module).__name__, "settings": plain})
    is_chain = type(net) is nn.Sequential and all(type(module) in _KINDS.values() for module in net)
    return layers if is_chain else None


def _built(layer: Mapping[str, Any]) -> nn.Module:
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in layer["settings"].items()}
    if layer["kind"] == Select.__name__:
        return Select(torch.zeros(settings["indices"], dtype=torch.int64))
    return _KINDS[layer["kind"]](**settings)


def _tensor(meta: Mapping[str, Any], content: bytes) -> Tensor:
    sizes, strides = ([size["as_int"] for size in meta["tensor_meta"][key]] for key in ("sizes", "strides"))
    return torch.frombuffer(bytearray(content), dtype=_DTYPES[meta["tensor_meta"]["dtype"]]).as_strided(sizes, strides)
