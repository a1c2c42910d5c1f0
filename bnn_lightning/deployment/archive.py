"""Archive, the parts of a .pt2 file that are texts and numbers; its pickles are not read."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor

RECORD = "bnn_lightning.json"
"""The name of the record in the file."""

DTYPES = {1: torch.uint8, 4: torch.int32, 5: torch.int64, 7: torch.float32, 8: torch.float64, 12: torch.bool}
"""By torch.export's numbers of dtypes."""


class Archive:
    """The file, open to be read: ``with Archive(path) as archive:``.

    Args:
        path: the file; what torch.export.save writes is a zip file with one folder.
    """

    def __init__(self, path: str | Path):
        self._file = zipfile.ZipFile(path)
        self._root = self._file.namelist()[0].partition("/")[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def json(self, name: str) -> Any:
        """The values of a part of this name."""
        return json.loads(self._file.read(f"{self._root}/{name}"))

    def tensors(self, kind: Literal["weights", "constants"]) -> dict[str, Tensor]:
        """The tensors of a kind, by name: numbers as they lie in memory, with sizes and strides."""
        entries = self.json(f"data/{kind}/model_{kind}_config.json")["config"]
        return {name: self._tensor(kind, entry) for name, entry in entries.items()}

    def _tensor(self, kind: str, entry: Mapping[str, Any]) -> Tensor:
        if entry["use_pickle"]:
            raise ValueError(f"{entry['path_name']} is a pickle")
        meta, content = entry["tensor_meta"], self._file.read(f"{self._root}/data/{kind}/{entry['path_name']}")
        sizes, strides = ([size["as_int"] for size in meta[key]] for key in ("sizes", "strides"))
        if 0 in sizes:
            return torch.empty(sizes, dtype=DTYPES[meta["dtype"]])
        flat = torch.frombuffer(bytearray(content), dtype=DTYPES[meta["dtype"]])
        return flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"])
