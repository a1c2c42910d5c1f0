"""Bars: images with as many bright columns as their label says."""

import torch

from bnn_lightning.data import ImageData, Images


class Bars(ImageData):
    """Noise of 16 x 16 pixels with 0 to 9 bright columns at random places."""

    class_names = tuple("0123456789")
    native_size = 16

    def load_train(self) -> Images:
        return self._make(400, seed=1)

    def load_test(self) -> Images:
        return self._make(100, seed=2)

    def _make(self, count: int, seed: int) -> Images:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 10, (count,), generator=generator)
        pixels = torch.randint(0, 60, (count, 1, 16, 16), generator=generator)
        columns = torch.rand(count, 16, generator=generator).argsort(1) < labels.unsqueeze(1)
        return Images((pixels + 180 * columns.view(count, 1, 1, 16)).to(torch.uint8), labels)
