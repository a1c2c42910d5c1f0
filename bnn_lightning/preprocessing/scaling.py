"""Scaling: pixels and features as a network gets them, with the means and standard deviations of training."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Scaling:
    """Normalises pixels, (x / 255 - mean) / std for each channel.

    Args:
        mean, std: of each channel, on a scale where 255 is 1.
        device: of the pixels.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"):
        means, stds = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
        self.scale, self.shift = (
            values.float().view(1, -1, 1, 1).to(device) for values in (1 / (255 * stds), means / stds)
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """``(images, channels, height, width)`` in float32, of uint8 pixels of that shape."""
        return pixels.float().mul_(self.scale).sub_(self.shift)

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest number that a pixel can become."""
        ends = torch.cat([-self.shift, 255 * self.scale - self.shift])
        return ends.min().item(), ends.max().item()


def standardised(features: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(features - mean) / std of rows ``(rows, features)``, float32; 0, which is the mean, where there is no value."""
    means, stds = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
    return ((features - means) / stds).nan_to_num(0.0).float()
