"""Corrupted test images: rotation, noise, blur, contrast and occlusion, each in five severities.

After Hendrycks & Dietterich 2019 (arXiv:1903.12261), but computed here, with severities that suit small images instead
of the published ones. Randomness is seeded, so that every network sees the same pixels.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

SEVERITIES = (1, 2, 3, 4, 5)
NUM_IMAGES = 2_000
"""How many test images are corrupted; the same ones for every network."""


def corrupted(pixels: Tensor, kind: str, severity: int) -> Tensor:
    """A corrupted copy of ``pixels``, uint8 ``(images, channels, height, width)``.

    Args:
        pixels: the clean images.
        kind: a key of ``KINDS``.
        severity: from 1, the mildest, to 5.

    Raises:
        ValueError: when there is no such kind or severity.
    """
    if kind not in KINDS or severity not in SEVERITIES:
        raise ValueError(f"corruption must be one of {', '.join(KINDS)} from 1 to 5, got {kind!r} at {severity}.")
    return KINDS[kind](pixels, severity, torch.Generator().manual_seed(severity))


def rotation(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Rotates by 15 degrees per severity, every second image in the opposite direction; empty corners are black."""
    rotated = torch.empty_like(pixels)
    for start, direction in ((0, 1), (1, -1)):
        bilinear = tvf.InterpolationMode.BILINEAR
        rotated[start::2] = tvf.rotate(pixels[start::2], direction * 15.0 * severity, bilinear)
    return rotated


def noise(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Adds Gaussian noise with a standard deviation of 0.1 per severity, on a scale where white is 1."""
    change = torch.randn(pixels.shape, generator=generator) * (25.5 * severity)
    return _to_uint8(pixels + change)


def blur(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Blurs with a Gaussian whose standard deviation is 1/64 of the image's side per severity."""
    sigma = severity * pixels.shape[-1] / 64
    side = 2 * round(3 * sigma) + 1
    side = min(side, 2 * ((pixels.shape[-1] - 1) // 2) + 1)  # torch mirrors the image at its edges, at most once
    return tvf.gaussian_blur(pixels, [side, side], [sigma, sigma])


def contrast(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Scales the differences from the image's mean by 0.7, 0.5, 0.3, 0.2 or 0.1."""
    factor = (0.7, 0.5, 0.3, 0.2, 0.1)[severity - 1]
    mean = pixels.float().mean((1, 2, 3), keepdim=True)
    return _to_uint8(mean + factor * (pixels - mean))


def occlusion(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Covers a random place with a grey square: its side is 2/10 of the image's at severity 1, 6/10 at 5."""
    height, width = pixels.shape[2:]
    side = [max(1, round(length * (severity + 1) / 10)) for length in (height, width)]
    covered = pixels.clone()
    for image in covered:
        top = int(torch.randint(height - side[0] + 1, (), generator=generator))
        left = int(torch.randint(width - side[1] + 1, (), generator=generator))
        image[:, top : top + side[0], left : left + side[1]] = 128
    return covered


def _to_uint8(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


KINDS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "rotation": rotation,
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "occlusion": occlusion,
}
