"""Networks as .pt2 files: written by torch.export.save, and read back without executing anything in the file."""

import io
import json
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.compression.channels import ELEMENTWISE, POOLING, WEIGHTED
from bnn_lightning.compression.shrink import Select
from bnn_lightning.core.conversion import children_in_order
from bnn_lightning.deployment.archive import RECORD, Archive
from bnn_lightning.deployment.base import ExportFormat
from bnn_lightning.deployment.program import exported_program
from bnn_lightning.files import atomic_write
from bnn_lightning.wording import first_line

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (*WEIGHTED, *ELEMENTWISE, *POOLING, nn.Flatten, Select)}


@dataclass(frozen=True)
class Pt2(ExportFormat):
    """torch's own format: ``torch.export.load(path).module()`` is the network, for batches of any size.

    The record is stored in the file as ``bnn_lightning.json``, together with a specification of the layers if the
    network is a chain, from which :func:`load_dense` rebuilds it.
    """

    ending = ".pt2"
    how_to_load = "torch.export.load(FILE).module() loads it"

    def write(self, net: nn.Module, path: Path, example: Tensor, record: Mapping[str, Any]) -> None:
        program = exported_program(net, example)
        content = io.BytesIO()
        with warnings.catch_warnings():
            # torch 2.14 warns about weights in channels_last memory, but stores them completely.
            warnings.filterwarnings("ignore", "No complete tensor found")
            text = json.dumps(dict(record) | {"layers": _layer_specs(net)}, indent=2)
            torch.export.save(program, content, extra_files={RECORD: text})
        atomic_write(path, content.getbuffer())


def load_dense(path: str | Path) -> nn.Sequential:
    """The network in a file written by :class:`Pt2`, in eval mode, safe also for files from unknown sources.

    ``torch.export.load`` unpickles some parts of such a file and evaluates others, so that a file can execute any code:
    use it for your own files alone. This function builds layers of known kinds from the specification in
    ``bnn_lightning.json`` and fills them with the numbers in ``data/weights``; it reads nothing else.

    Raises:
        ValueError: when the file cannot be read, or its network is not a chain of known layers.
    """
    try:
        with Archive(path) as archive:
            specs = archive.json(f"extra/{RECORD}")["layers"]
            net = nn.Sequential(OrderedDict((spec["name"], _layer_from_spec(spec)) for spec in specs))
            net.load_state_dict(archive.tensors("weights"))
    except Exception as error:  # a damaged archive can raise nearly anything
        raise ValueError(f"{path} cannot be read as an exported network ({first_line(error)}).") from None
    return net.eval()


def _layer_specs(net: nn.Module) -> list[dict[str, Any]] | None:
    """Name, kind and settings (arguments of the constructor) of each layer of a chain; None for any other network."""
    specs = []
    for name, module in children_in_order(net):
        settings = {key: getattr(module, key, None) for key in signature(type(module).__init__).parameters}
        if "bias" in settings:
            settings["bias"] = settings["bias"] is not None
        if isinstance(module, Select):
            settings["indices"] = len(module.indices)
        settings = {key: value for key, value in settings.items() if value is not None}
        specs.append({"name": name, "kind": type(module).__name__, "settings": settings})
    is_chain = type(net) is nn.Sequential and all(type(module) in _KINDS.values() for module in net)
    return specs if is_chain else None


def _layer_from_spec(spec: Mapping[str, Any]) -> nn.Module:
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in spec["settings"].items()}
    if spec["kind"] == Select.__name__:
        return Select(torch.zeros(settings["indices"], dtype=torch.int64))
    return _KINDS[spec["kind"]](**settings)
