"""Test images made worse in five ways and five degrees: rotation, noise, blur, contrast, occlusion.

After Hendrycks & Dietterich 2019 (arXiv:1903.12261), computed here; severities suit small images and are those below,
not the published ones. Randomness is seeded, so that every network sees the same pixels.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

SEVERITIES = (1, 2, 3, 4, 5)
IMAGES = 2_000
"""Corrupted images are made of this many test images, the same for every network."""


def corrupted(pixels: Tensor, kind: str, severity: int) -> Tensor:
    """``pixels``, uint8 ``(images, channels, height, width)``, after the corruption ``kind`` at a severity from 1 to 5.

    Raises:
        ValueError: for another kind or severity.
    """
    if kind not in KINDS or severity not in SEVERITIES:
        raise ValueError(f"corruption must be one of {', '.join(KINDS)} from 1 to 5, got {kind!r} at {severity}.")
    return KINDS[kind](pixels, severity, torch.Generator().manual_seed(severity))


def rotation(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """By 15 degrees a step, every second image to the right; corners that come in are black."""
    turned = torch.empty_like(pixels)
    for start, direction in ((0, 1), (1, -1)):
        bilinear = tvf.InterpolationMode.BILINEAR
        turned[start::2] = tvf.rotate(pixels[start::2], direction * 15.0 * severity, bilinear)
    return turned


def noise(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Gaussian, with a standard deviation of 0.1 a step where white is 1."""
    added = torch.randn(pixels.shape, generator=generator) * (25.5 * severity)
    return _eight_bits(pixels + added)


def blur(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Gaussian, with a standard deviation of 1/64 of the image's side a step."""
    sigma = severity * pixels.shape[-1] / 64
    side = 2 * round(3 * sigma) + 1
    side = min(side, 2 * ((pixels.shape[-1] - 1) // 2) + 1)  # the image is mirrored at its edge, once
    return tvf.gaussian_blur(pixels, [side, side], [sigma, sigma])


def contrast(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """What differs from the image's mean shrinks to 0.7, 0.5, 0.3, 0.2, 0.1."""
    kept = (0.7, 0.5, 0.3, 0.2, 0.1)[severity - 1]
    mean = pixels.float().mean((1, 2, 3), keepdim=True)
    return _eight_bits(mean + kept * (pixels - mean))


def occlusion(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A grey square, its side a tenth of the image's larger with each step from two tenths, at a random place."""
    height, width = pixels.shape[2:]
    side = [max(1, round(length * (severity + 1) / 10)) for length in (height, width)]
    covered = pixels.clone()
    for image in covered:
        top = int(torch.randint(height - side[0] + 1, (), generator=generator))
        left = int(torch.randint(width - side[1] + 1, (), generator=generator))
        image[:, top : top + side[0], left : left + side[1]] = 128
    return covered


def _eight_bits(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


KINDS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "rotation": rotation,
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "occlusion": occlusion,
}
