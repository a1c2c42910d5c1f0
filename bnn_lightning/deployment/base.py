"""The contract of an export format: a kind of file that other programs load a network from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn


class ExportFormat(ABC):
    """A kind of file. Write one as a frozen dataclass of its settings."""

    ending: ClassVar[str]
    """Of its files, such as ``.pt2``."""

    how_to_load: ClassVar[str]
    """What a user is told, such as "torch.export.load(FILE).module() loads it"."""

    @abstractmethod
    def write(self, net: nn.Module, path: Path, example: Tensor, record: Mapping[str, Any]) -> None:
        """Writes a network of plain layers, for any batch size.

        Args:
            net: the network.
            path: the file.
            example: a batch of 2 or more images as the network takes them.
            record: plain values that go into the file.
        """
