"""RotatedDigits: MNIST5k's digits, each rotated by an angle that is to be predicted."""

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from bnn_lightning.data.loader import Images
from bnn_lightning.data.mnist5k import MNIST5k

LARGEST_ANGLE = 45.0


class RotatedDigits(MNIST5k):
    """The digits of MNIST5k, rotated by -45 to 45 degrees; the angle is the target, positive against the clock.

    Angles are uniform, and the same in every run: the test set never changes.
    """

    class_names = ()
    target_names = ("angle",)

    def load_train(self) -> Images:
        return _rotated(super().load_train(), seed=1)

    def load_test(self) -> Images:
        return _rotated(super().load_test(), seed=2)


def _rotated(images: Images, seed: int) -> Images:
    generator = torch.Generator().manual_seed(seed)
    angles = LARGEST_ANGLE * (2 * torch.rand(len(images), 1, generator=generator) - 1)
    rotate = [
        tvf.rotate(pixels, angle, InterpolationMode.BILINEAR)
        for pixels, angle in zip(images.pixels, angles.flatten().tolist(), strict=True)
    ]
    return Images(torch.stack(rotate), angles)
