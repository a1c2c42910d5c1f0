"""Mean and standard deviation that are given."""

import pytest
import torch

from bnn_lightning.data import MNIST5k, RenderedLetters


def test_given_constants_normalise_all_images_and_are_described():
    data = MNIST5k(train_subset=500, channels=3, mean=[0.485, 0.456, 0.406], std=[0.25, 0.5, 1.0])
    data.setup()
    assert data.describe() | {"mean": [0.485, 0.456, 0.406], "std": [0.25, 0.5, 1.0]} == data.describe()
    for images, loader in ((data.test, data.test_dataloader()), (data.selection, data.val_dataloader())):
        x, _ = next(iter(loader))
        raw = images.pixels[: len(x)].double() / 255
        expected = (raw - torch.tensor(data.mean).view(-1, 1, 1)) / torch.tensor(data.std).view(-1, 1, 1)
        torch.testing.assert_close(x.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("given", [0.5, [0.5]])
def test_one_number_is_for_every_channel(given):
    data = MNIST5k(train_subset=500, channels=3, mean=given, std=given)
    data.setup("test")
    assert (data.mean, data.std) == ([0.5] * 3, [0.5] * 3)
    assert data.train is None  # nothing had to be computed


def test_other_images_take_over_what_a_checkpoint_describes():
    data = MNIST5k(train_subset=500, mean=0.25, std=0.5, ood=[RenderedLetters(mean=0.9, std=0.9)])
    data.setup("test")
    black = next(iter(data.test_dataloader()[1]))[0][0, 0, 0, 0]
    assert black.item() == pytest.approx(-0.5)
    other = MNIST5k(train_subset=500)
    other.prepare_like(data.describe())
    other.setup("test")
    assert (other.mean, other.std) == ([0.25], [0.5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": 0.5}, "mean must be given together with std, got 0.5 and None."),
        ({"mean": 0.5, "std": 0.5, "normalize": False}, "mean must be null where normalize is false, got 0.5."),
        (
            {"mean": [123.7, 116.3], "std": [0.2, 0.2]},
            "mean must be numbers from 0 to 1, on a scale where 255 is 1, got [123.7, 116.3]; divide by 255.",
        ),
        ({"mean": 0, "std": 0}, "std must be numbers from above 0 to 1, on a scale where 255 is 1, got [0]."),
        ({"mean": [], "std": 1}, "mean must be numbers from 0 to 1, on a scale where 255 is 1, got []."),
        (
            {"mean": float("nan"), "std": 1},
            "mean must be numbers from 0 to 1, on a scale where 255 is 1, got [nan].",
        ),
        (
            {"mean": [0.1, 0.2], "std": 1},
            "mean must be one number or one for each channel (1), got [0.1, 0.2]; channels converts images to 1 or 3 "
            "channels.",
        ),
    ],
)
def test_numbers_that_cannot_normalise_are_refused(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        MNIST5k(**settings).setup("test")
    assert str(error.value) == message
