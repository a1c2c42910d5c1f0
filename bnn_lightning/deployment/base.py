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
            net: the network; what it gives is a tensor, or a dictionary of tensors by name, which the file should name
                so: that is :class:`bnn_lightning.deployment.graph.PredictiveGraph`.
            path: the file to write.
            example: two or more inputs as the network takes them, such as ``(batch, channels, height, width)``.
            record: plain values to store in the file, such as the checkpoint and how the images were prepared;
                ``record["input"]["name"]``, where it is there, is the name of the input.

        Raises:
            ValueError: when the network cannot be written in this format.
            UnwritableError: when the file cannot be written.
        """
