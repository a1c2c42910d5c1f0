"""Augmentation of training batches: crops, flips and maps of a whole batch at once, and transforms of torchvision."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from bnn_lightning.randomness import combined_seed, seeded
from bnn_lightning.wording import one_line


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training batch: a random crop, flip and affine map, then the transforms, in their order.

    Every image has random numbers of its own. Crop, flip and affine map take a whole batch at once; a transform of
    torchvision has one set of random parameters in a call, and so is called for one image at a time.

    Args:
        crop_padding: pad by this many black pixels and crop back to the size at a random place; 0 crops nothing.
        flip: mirror left to right with probability 1/2.
        affine: map about the centre by I + ``affine`` * U with U uniform on [-1, 1]^(2 x 2), bilinear, black outside; 0
            maps nothing.
        transforms: of images alone, uint8 in and out; :func:`check_transforms` says what is wrong with others.
    """

    crop_padding: int = 0
    flip: bool = False
    affine: float = 0.0
    transforms: tuple[v2.Transform, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.crop_padding or self.flip or self.affine or self.transforms)

    def __call__(self, pixels: Tensor, seed: int) -> Tensor:
        """The augmented images of a batch, uint8 ``(batch, channels, height, width)`` as it is.

        A function of its arguments: random generators are left as they were.

        Raises:
            ValueError: when a transform changes shape or type of an image.
        """
        generator = torch.Generator().manual_seed(seed)
        if self.crop_padding:
            pixels = _random_crop(pixels, self.crop_padding, generator)
        if self.flip:
            mirrored = torch.randint(0, 2, (len(pixels), 1, 1, 1), generator=generator, dtype=torch.bool)
            pixels = torch.where(mirrored.to(pixels.device, non_blocking=True), pixels.flip(3), pixels)
        if self.affine:
            pixels = _random_map(pixels, self.affine, generator)
        if self.transforms:
            with seeded(combined_seed(seed, 1), pixels.device):
                pixels = torch.stack([self._transformed(image) for image in pixels])
        return pixels

    def _transformed(self, image: Tensor) -> Tensor:
        for transform in self.transforms:
            before, image = image, transform(image)
            _check_result(transform, before, image)
        return image


def check_transforms(transforms: Sequence[v2.Transform], image: Tensor) -> None:
    """Tries each transform on an image, so that what cannot be used is refused before training.

    Args:
        transforms: to try, one after the other.
        image: uint8 ``(channels, height, width)``.

    Raises:
        ValueError: when one mixes labels, cannot be called for an image alone, or changes its shape or type.
    """
    for transform in transforms:
        if mixing := next((each for each in _with_parts(transform) if isinstance(each, v2.MixUp | v2.CutMix)), None):
            raise ValueError(f"transforms must leave labels as they are, got {_name(mixing)}, which mixes them.")
        with seeded(0, image.device):
            try:
                changed = transform(image.clone())  # it may work in place, and the image is one of training
            except Exception as error:  # a transform of somebody else's can raise anything
                raise ValueError(
                    f"transforms must be of uint8 images alone, got {_name(transform)}, which refuses one: "
                    f"{one_line(error)}."
                ) from error
        _check_result(transform, image, changed)


def _check_result(transform: v2.Transform, before: Tensor, after: Tensor) -> None:
    if not isinstance(after, Tensor) or (after.shape, after.dtype) != (before.shape, before.dtype):
        got = f"{_text(after)}" if isinstance(after, Tensor) else type(after).__name__
        raise ValueError(
            f"transforms must keep the shape and type of images, got {_name(transform)}, which makes {got} of "
            f"{_text(before)}; image_size, channels and normalize say how images are prepared."
        )


def _text(image: Tensor) -> str:
    return f"{'x'.join(map(str, image.shape))} {str(image.dtype).removeprefix('torch.')}"


def _name(transform: v2.Transform) -> str:
    return type(transform).__name__


def _with_parts(transform: object) -> Iterator[object]:
    """The transform and those inside it, as of RandomApply."""
    yield transform
    parts = getattr(transform, "transforms", ())
    for part in parts if isinstance(parts, list | tuple | torch.nn.ModuleList) else ():
        yield from _with_parts(part)


def _random_crop(pixels: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pads with black pixels and cuts a window of the old size at a random place of each image."""
    batch, _, height, width = pixels.shape
    windows = F.pad(pixels, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # (..., top, left, height, width)
    corners = torch.randint(0, 2 * padding + 1, (2, batch), generator=generator)
    top, left = corners.to(pixels.device, non_blocking=True)
    image = torch.arange(batch, device=pixels.device)
    return windows[image, :, top, left]


def _random_map(pixels: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """Turns, shears and stretches each image about its centre by a random matrix of its own."""
    matrices = torch.eye(2) + size * (2 * torch.rand(len(pixels), 2, 2, generator=generator) - 1)
    without_shift = F.pad(matrices, (0, 1)).to(pixels.device, non_blocking=True)
    grid = F.affine_grid(without_shift, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels.float(), grid, align_corners=False).round().to(pixels.dtype)
