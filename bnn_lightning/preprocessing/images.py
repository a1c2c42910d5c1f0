"""ImagePreparation: what a program has of images, made what a network takes, as the images of training were."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bnn_lightning.preprocessing.arrays import Layout, images_in, is_array
from bnn_lightning.preprocessing.decoding import Background, Decoder, Fit
from bnn_lightning.preprocessing.pictures import walk
from bnn_lightning.preprocessing.scaling import Scaling
from bnn_lightning.wording import printable

_KINDS = (
    "a path, the bytes of a picture file, a PIL image, an array or tensor of images, or a list of single ones of these"
)


class Batch(NamedTuple):
    """Some examples as a network takes them.

    Args:
        x: ``(examples, ...)``, float32.
        files: their names where they were given as files, else None.
    """

    x: Tensor
    files: list[str] | None


@dataclass(frozen=True)
class ImagePreparation:
    """Prepares images as those of training were.

    Args:
        channels: 1 (grey) or 3 (RGB).
        size: pixels a side.
        mean, std: of each channel, on a scale where 255 is 1.
        fit, background: see :class:`bnn_lightning.preprocessing.decoding.Decoder`.
    """

    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "crop"
    background: Background = "white"

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """That of a checkpoint's description of its data."""
        return cls(
            description["channels"],
            description["image_size"],
            tuple(description["mean"]),
            tuple(description["std"]),
            description.get("fit", "crop"),
            description.get("background", "white"),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image that is prepared."""
        return self.channels, self.size, self.size

    def batches(self, images: Any, size: int, layout: Layout | None = None) -> Iterator[Batch]:
        """Images by at most ``size``, prepared one batch after the other.

        Args:
            images: a path of a file, or of a folder, whose pictures are taken as ``bnn predict`` takes them; the bytes
                of a file, or an open one; a PIL image; an array or tensor, see :func:`images_in`; a list of these.
            size: of a batch.
            layout: of the axes of arrays; None finds it by their sizes.

        Raises:
            ValueError: when it is none of these, when there is none, or one cannot be read.
        """
        decoder, scaling = Decoder(self.channels, self.size, self.fit, self.background), Scaling(self.mean, self.std)
        given = self._each(images, layout)
        files = [_name(image) for image in given]
        for start in range(0, len(given), size):
            part = given[start : start + size]
            pixels = np.stack([self._pixels(image, decoder, start + index) for index, image in enumerate(part)])
            names = [
                name or f"image {start + index}" for index, name in enumerate(files[start : start + size], start=1)
            ]
            yield Batch(scaling(torch.from_numpy(pixels)), names if any(files) else None)

    def _each(self, images: Any, layout: Layout | None) -> list[Any]:
        """Single images: paths of files, open files, PIL images, arrays of uint8 with the channels last."""
        if isinstance(images, list | tuple):
            each = [single for image in images for single in self._some(image, layout, is_one=True)]
        else:
            each = self._some(images, layout, is_one=False)
        if not each:
            where = f"none in {printable(Path(images))}" if isinstance(images, str | os.PathLike) else "none"
            raise ValueError(f"images must be one or more, got {where}.")
        return each

    def _some(self, images: Any, layout: Layout | None, is_one: bool) -> list[Any]:
        if isinstance(images, str | os.PathLike):
            path = Path(images).expanduser()
            if path.is_dir():
                return [picture.path for picture in walk(path).pictures]
            if not path.is_file():
                raise ValueError(f"images must be files that are there, got {printable(path)}, which is not.")
            return [path]
        if is_array(images):
            return list(images_in(images, layout, self.channels, is_one))
        if isinstance(images, bytes | bytearray | memoryview):
            return [BytesIO(images)]
        if isinstance(images, Image.Image) or hasattr(images, "read"):
            return [images]
        raise ValueError(f"images must be {_KINDS}, got {type(images).__name__}.")

    def _pixels(self, image: Any, decoder: Decoder, index: int) -> np.ndarray:
        """``(channels, size, size)``, uint8."""
        if isinstance(image, np.ndarray) and image.shape == (self.size, self.size, self.channels):
            return np.moveaxis(image, -1, 0)
        try:
            if isinstance(image, np.ndarray):
                image = Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image))
            return (decoder.decoded(image) if isinstance(image, Image.Image) else decoder(image)).pixels
        except Exception as error:  # a damaged picture can raise nearly anything
            reason = (str(error) or type(error).__name__).rstrip(".")
            if isinstance(error, UnidentifiedImageError) and not isinstance(image, Path):
                reason = "it is of no format that is known"  # Pillow names the object that they are in
            raise ValueError(
                f"images must be pictures that can be read, got {_name(image) or f'number {index}, from 0'}: {reason}."
            ) from error


def _name(image: Any) -> str | None:
    """The name of a file, as ``bnn predict`` has it."""
    return printable(image) if isinstance(image, Path) else None


@dataclass(frozen=True)
class NoPreparation:
    """Of a checkpoint that does not say how examples are prepared, as of a user's data module: they are taken as is."""

    @property
    def shape(self) -> None:
        """Not known."""
        return None

    def batches(self, inputs: Any, size: int, layout: Layout | None = None) -> Iterator[Batch]:
        """Float tensors or arrays ``(examples, ...)``, prepared by whoever has them, by at most ``size``.

        Raises:
            ValueError: when they are something else.
        """
        tensor = torch.from_numpy(inputs) if isinstance(inputs, np.ndarray) else inputs
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.dim() < 2 or not len(tensor):
            kind = (
                f"{tensor.dtype} of shape {tuple(tensor.shape)}"
                if isinstance(tensor, Tensor)
                else type(inputs).__name__
            )
            raise ValueError(
                "inputs must be a float tensor (examples, ...) as the network takes it, because this checkpoint does "
                f"not say how its examples were prepared, got {kind}."
            )
        return (Batch(part.float(), None) for part in tensor.split(size))
