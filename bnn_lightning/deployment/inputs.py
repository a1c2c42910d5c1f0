"""GraphInput: what an exported graph takes of an example, and how the graph prepares it for the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from bnn_lightning.preprocessing.scaling import Scaling, standardised


@dataclass(frozen=True)
class GraphInput:
    """Pixels as they are in a picture, ``(batch, channels, height, width)``, uint8; or rows of numbers, float32.

    Pixels are scaled in the graph, (x / 255 - mean) / std for each channel. Rows ``(batch, features)`` are in the units
    of the table, encoded (one number for each level of a column of texts, nan where there is no value), and are
    standardised in the graph.

    Args:
        name: of the input.
        shape: of an example.
        mean, std: of training, for each channel or feature.
    """

    name: Literal["pixels", "features"]
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """That of a checkpoint's description of its data.

        Raises:
            ValueError: when it does not say what an example is.
        """
        if not {"mean", "std"} <= set(data):
            raise ValueError(
                "ckpt_path must be of a checkpoint that says how its examples are prepared, got one of your own data "
                "module, which does not: torch.export.export takes bnn_lightning.MomentNetwork(net) too."
            )
        mean, std = tuple(data["mean"]), tuple(data["std"])
        if "columns" in data:
            return cls("features", (len(mean),), mean, std)
        return cls("pixels", (data["channels"], data["image_size"], data["image_size"]), mean, std)

    @property
    def dtype(self) -> torch.dtype:
        """Of the input."""
        return torch.uint8 if self.name == "pixels" else torch.float32

    def example(self) -> Tensor:
        """Two inputs of that shape, all 0."""
        return torch.zeros(2, *self.shape, dtype=self.dtype)

    def prepared(self, x: Tensor) -> Tensor:
        """What the network takes, ``(batch, ...)``, float32, of a batch of inputs."""
        if self.name == "pixels":
            return Scaling(self.mean, self.std, x.device)(x)
        return standardised(x, self.mean, self.std)

    def raw(self, x: Tensor) -> Tensor:
        """The inputs of which :meth:`prepared` makes ``x``."""
        shape: Sequence[int] = (-1, *(1,) * (len(self.shape) - 1))
        mean, std = (torch.tensor(values, dtype=torch.float64).view(*shape) for values in (self.mean, self.std))
        given = x.double() * std + mean
        return (255 * given).round().to(torch.uint8) if self.name == "pixels" else given.float()
