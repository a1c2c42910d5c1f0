"""The contract of an export format: a kind of file from which other programs load a network."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn


class ExportFormat(ABC):
    """A kind of file that a network is exported to. Write a format as a frozen dataclass of its settings."""

    ending: ClassVar[str]
    """The ending of its file names, such as ``.pt2``."""

    how_to_load: ClassVar[str]
    """How a user loads a file, as a sentence: "torch.export.load(FILE).module() loads it"."""

    @abstractmethod
    def write(self, net: nn.Module, path: Path, example: Tensor, record: Mapping[str, Any]) -> None:
        """Writes a network of plain layers to a file, so that it can be loaded for batches of any size.

        Args:
            net: the network.
            path: the file to write.
            example: two or more images as the network takes them, ``(batch, channels, height, width)``.
            record: plain values to store in the file, such as the checkpoint and how the images were prepared.

        Raises:
            UnwritableError: when the file cannot be written.
        """
