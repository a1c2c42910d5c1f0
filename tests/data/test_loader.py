"""Images in memory, and the batches that are served of them."""

import itertools

import numpy as np
import pytest
import torch

from bnn_lightning.data import BatchLoader, Images, MNIST5k
from bnn_lightning.data.loader import EpochSampler


def test_mean_and_std_are_numpys():
    images = Images(torch.randint(0, 256, (20, 3, 5, 5), dtype=torch.uint8), torch.zeros(20, dtype=torch.int64))
    mean, std = images.mean_and_std()
    scaled = images.pixels.numpy() / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)), rtol=1e-9)


def loader(count=10, batch_size=4, **settings):
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    sampler = EpochSampler(count, shuffle=True, seed=5, **settings)
    return BatchLoader(Images(pixels, torch.arange(count)), batch_size, [0.0], [1 / 255], sampler)


def order(batches):
    return torch.cat([labels for _, labels in batches]).tolist()


def test_order_is_a_function_of_seed_and_epoch():
    first_loader, second_loader = loader(), loader()
    first = order(first_loader)
    assert sorted(first) == list(range(10))
    assert first != list(range(10))
    other_seed = loader()
    other_seed.sampler.seed = 6
    assert order(other_seed) != first
    first_loader.sampler.set_epoch(1)
    assert order(first_loader) != first
    assert order(second_loader) == first
    first_loader.sampler.set_epoch(1)
    assert order(second_loader) == order(first_loader)  # without Lightning, the next pass is the next epoch
    x, labels = next(iter(loader()))
    assert torch.equal(x[:, 0, 0, 0].long(), labels)


def test_processes_share_an_epoch_without_repeats():
    ranks = [loader(rank=rank, world_size=3) for rank in range(3)]
    seen = [order(rank) for rank in ranks]
    assert [len(part) for part in seen] == [3, 3, 3]
    assert len(set(itertools.chain(*seen))) == 9
    evaluation = [EpochSampler(10, shuffle=False, rank=rank, world_size=3) for rank in range(3)]
    seen = [sampler.order().tolist() for sampler in evaluation]
    assert sorted(itertools.chain(*seen)) == list(range(10))
    assert [len(sampler) for sampler in evaluation] == [4, 3, 3]


def test_a_last_training_batch_of_one_is_left_out():
    assert [len(labels) for _, labels in loader(count=9, batch_size=4)] == [4, 4]
    assert len(loader(count=9, batch_size=4)) == 2
    assert [len(labels) for _, labels in loader(count=10, batch_size=4)] == [4, 4, 2]
    assert len(loader(count=1, batch_size=4)) == 1


def test_channels_and_size_are_converted():
    grey = Images(torch.full((2, 1, 28, 28), 77, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    colour = grey.converted(channels=3, size=32)
    assert colour.pixels.shape == (2, 3, 32, 32)
    assert (colour.pixels == 77).all()
    assert (colour.converted(1, 32).pixels.float() - 77).abs().max() <= 1  # luminance weights add up to 0.9999


def test_pixels_in_a_file_are_read_when_they_are_asked_for():
    stored = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    images = Images(stored, torch.arange(10), torch.arange(10))
    part = images[torch.tensor([7, 3, 5])][1:]
    assert part.stored.data_ptr() == stored.data_ptr()
    assert part.pixels.flatten().tolist() == part.labels.tolist() == [3, 5]
    assert Images(stored, torch.arange(10)).mean_and_std() == images.mean_and_std()
    with pytest.raises(ValueError, match="labels must be one for each image"):
        Images(stored, torch.arange(10), torch.arange(4))


def test_batches_go_to_the_device_they_are_wanted_on(digits):
    # The meta device stands for a GPU: it takes shapes and kinds of numbers, and refuses numbers from elsewhere.
    loader = BatchLoader(digits.train, 64, digits.mean, digits.std, EpochSampler(3200, shuffle=True), device="meta")
    pixels, labels = next(iter(loader))
    assert (pixels.device.type, labels.device.type) == ("meta", "meta")
    assert (pixels.dtype, labels.dtype, pixels.shape) == (torch.float32, torch.int64, (64, 1, 32, 32))


def test_resident_images_give_the_same_batches():
    settings = {"image_size": 32, "train_subset": 300, "crop_padding": 2, "flip": True}
    batches = []
    for resident in (False, True):
        data = MNIST5k(**settings, resident=resident)
        data.setup("fit")
        batches.append(list(data.train_dataloader()))
    torch.testing.assert_close(*batches, rtol=0, atol=0)
