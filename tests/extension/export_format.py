"""Npz: the numbers of a network as a numpy archive."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from bnn_lightning import ExportFormat
from bnn_lightning.files import atomic_write


@dataclass(frozen=True)
class Npz(ExportFormat):
    """An array for each tensor of the state_dict, and the record as JSON text.

    Args:
        half: whether numbers are kept in half precision.
    """

    ending = ".npz"
    how_to_load = "numpy.load(FILE) has its arrays"

    half: bool = False

    def write(self, net: nn.Module, path: Path, example: Tensor, record: Mapping[str, Any]) -> None:
        arrays = {name: value.numpy().astype("f2" if self.half else "f4") for name, value in net.state_dict().items()}
        content = io.BytesIO()
        np.savez(content, record=np.array(json.dumps(dict(record))), **arrays)
        atomic_write(path, content.getbuffer())
