"""Random maps and transforms of torchvision on training batches, and what is refused."""

import random

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from bnn_lightning.data import MNIST5k
from bnn_lightning.data.augmentation import Augmentation, check_transforms


class NumpyShift(v2.Transform):
    """Draws from numpy and Python, as somebody else's transform may."""

    def transform(self, inpt, params):
        return inpt.roll((int(np.random.randint(0, 4)), random.randrange(4)), (-2, -1))


TRANSFORMS = (v2.RandomRotation(20), NumpyShift(), v2.RandomErasing(p=1))


def batch(count=32):
    return torch.randint(0, 256, (count, 3, 12, 12), dtype=torch.uint8)


def test_each_image_gets_random_numbers_of_its_own():
    same = batch(1).expand(32, -1, -1, -1)
    for transform in TRANSFORMS:
        augmented = Augmentation(transforms=(transform,))(same, seed=3)
        assert augmented.dtype == torch.uint8
        assert augmented.shape == same.shape
        assert len(augmented.flatten(1).unique(dim=0)) > 8, transform


def test_a_batch_is_a_function_of_its_seed_and_other_randomness_is_left_alone():
    augment = Augmentation(2, True, 0.2, TRANSFORMS)
    pixels = batch()
    first = augment(pixels, seed=3)
    assert not torch.equal(augment(pixels, seed=4), first)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    assert torch.equal(augment(pixels, seed=3), first)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


def test_a_transform_draws_as_torchvision_does():
    # Image after image, from the generators' seed: what a loop of one's own would give.
    pixels = batch()
    augmented = Augmentation(transforms=(v2.RandomErasing(p=1),))(pixels, seed=3)
    erased = (augmented != pixels).flatten(1).sum(1)
    assert (erased > 0).all()
    assert (augmented[augmented != pixels] == 0).all()


def mapped(image, matrix):
    """Written out: the pixel at offset v from the centre is the image, between its pixels, at offset ``matrix @ v``."""
    size = len(image)
    framed, centre = np.pad(image.astype(float), size), (size - 1) / 2
    result = np.zeros_like(image)
    for row, column in np.ndindex(image.shape):
        x, y = matrix @ np.array([column - centre, row - centre]) + centre + size
        left, top = int(np.floor(x)), int(np.floor(y))
        across, down = x - left, y - top
        upper = (1 - across) * framed[top, left] + across * framed[top, left + 1]
        lower = (1 - across) * framed[top + 1, left] + across * framed[top + 1, left + 1]
        result[row, column] = round((1 - down) * upper + down * lower)
    return result


def test_a_map_is_one_by_a_matrix_about_the_centre():
    pixels = batch()
    augmented = Augmentation(affine=0.3)(pixels, seed=3)
    uniform = torch.rand(len(pixels), 2, 2, generator=torch.Generator().manual_seed(3))
    for image, after, u in zip(pixels, augmented, uniform.double().numpy(), strict=True):
        for channel, result in zip(image.numpy(), after.numpy(), strict=True):
            expected = mapped(channel, np.eye(2) + 0.3 * (2 * u - 1))
            assert np.abs(expected.astype(int) - result).max() <= 1  # float32, rounded
    assert augmented.dtype == torch.uint8


def test_only_training_batches_are_transformed():
    data = MNIST5k(train_subset=500, transforms=[v2.RandomInvert(p=1)])
    data.setup()
    loader = data.train_dataloader()
    x, labels = next(iter(loader))
    index = loader.sampler.order()[: len(labels)]
    shown = ((x + loader.scaling.shift) / loader.scaling.scale).round().to(torch.uint8)
    assert torch.equal(shown, 255 - data.train.pixels[index])
    for images, served in ((data.test, data.test_dataloader()), (data.selection, data.val_dataloader())):
        x, _ = next(iter(served))
        pixels = ((x + served.scaling.shift) / served.scaling.scale).round().to(torch.uint8)
        assert torch.equal(pixels, images.pixels[: len(x)])
    # The constants are those of the images as they are.
    plain = MNIST5k(train_subset=500)
    plain.setup("fit")
    assert (data.mean, data.std) == (plain.mean, plain.std)


def test_processes_and_epochs_are_transformed_differently():
    data = MNIST5k(train_subset=500, batch_size=50, transforms=[v2.RandomErasing(p=1)])
    data.setup("fit")
    seeds = set()
    for epoch in range(3):
        for rank in range(2):
            sampler = data.train_dataloader().sampler
            sampler.rank, sampler.epoch = rank, epoch
            seeds |= {sampler.augmentation_seed(step) for step in range(4)}
    assert len(seeds) == 24


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            v2.Resize(20),
            "transforms must keep the shape and type of images, got Resize, which makes 3x20x20 uint8 of 3x12x12 "
            "uint8; image_size, channels and normalize say how images are prepared.",
        ),
        (
            v2.ToDtype(torch.float32),
            "transforms must keep the shape and type of images, got ToDtype, which makes 3x12x12 float32 of 3x12x12 "
            "uint8; image_size, channels and normalize say how images are prepared.",
        ),
        (
            v2.ToPILImage(),
            "transforms must keep the shape and type of images, got ToPILImage, which makes Image of 3x12x12 uint8; "
            "image_size, channels and normalize say how images are prepared.",
        ),
        (v2.MixUp(num_classes=10), "transforms must leave labels as they are, got MixUp, which mixes them."),
        (
            v2.RandomApply([v2.RandomInvert(), v2.CutMix(num_classes=10)], p=0.1),
            "transforms must leave labels as they are, got CutMix, which mixes them.",
        ),
        (
            v2.Normalize([0.5], [0.5]),
            "transforms must be of uint8 images alone, got Normalize, which refuses one: Input tensor should be a "
            "float tensor. Got torch.uint8.",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, v2.Transform) else "",
)
def test_what_cannot_be_used_is_refused(transform, message):
    with pytest.raises(ValueError, match=r"^transforms must") as error:
        check_transforms([transform], batch(1)[0])
    assert str(error.value) == message


def test_a_transform_that_seldom_changes_the_size_is_refused_when_it_does():
    with pytest.raises(ValueError, match=r"^transforms must keep the shape and type of images, got RandomChoice"):
        Augmentation(transforms=(v2.RandomChoice([v2.RandomInvert(), v2.Resize(20)]),))(batch(), seed=0)


def test_it_is_refused_before_training():
    with pytest.raises(ValueError, match=r"^transforms must keep the shape"):
        MNIST5k(train_subset=500, transforms=[v2.CenterCrop(20)]).setup("fit")


def test_transforms_in_place_leave_the_training_images_as_they_are():
    plain = MNIST5k(train_subset=500)
    plain.setup("fit")
    data = MNIST5k(train_subset=500, transforms=[v2.RandomErasing(p=1, scale=(0.9, 1), value=7, inplace=True)])
    data.setup("fit")
    assert data.train.pixels.equal(plain.train.pixels)
    for _ in data.train_dataloader():
        pass
    assert data.train.pixels.equal(plain.train.pixels)
