"""Training on a part of the images: every class is in it, also where the files lie class by class."""

import numpy as np
import pytest
import torch
from PIL import Image

from bnn_lightning.data import ImageFolder, MNIST5k
from bnn_lightning.data.splits import subset_index

SIZES = {"a": 60, "b": 30, "c": 3}


@pytest.fixture
def root(tmp_path):
    """Three classes in folders, each picture with a level of its own."""
    for number, (name, size) in enumerate(SIZES.items()):
        (tmp_path / "train" / name).mkdir(parents=True)
        for index in range(size):
            pixels = np.full((8, 8), 80 * number + index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{index:02}.png")
    return tmp_path


def of_subset(root, subset, **settings):
    data = ImageFolder(str(root), image_size=8, train_subset=subset, **{"val_split": 0, **settings})
    data.setup("fit")
    return data.train


def test_a_subset_of_folders_holds_every_class(root, tmp_path):
    train = of_subset(root, 13)
    assert train.labels.bincount().tolist() == [8, 4, 1]
    assert train.labels.tolist() == sorted(train.labels.tolist())  # in file order
    assert train.pixels.equal(of_subset(root, [0, 13], cache=str(tmp_path / "cache")).pixels)
    assert not train.pixels.equal(of_subset(root, 13, seed=1).pixels)
    parts = [of_subset(root, [start, start + 31]).pixels[:, 0, 0, 0] for start in (0, 31, 62)]
    levels = [80 * number + index for number, size in enumerate(SIZES.values()) for index in range(size)]
    assert torch.cat(parts).sort().values.tolist() == sorted(levels)
    assert of_subset(root, 93).pixels.equal(of_subset(root, None).pixels)


def test_a_subset_without_a_class_says_so(root):
    sentence = (
        r"^1 of 3 classes are too small within train_subset \[0, 2\] to be in every part of the hold-out: "
        r"c \(train 0\)\.$"
    )
    with pytest.warns(UserWarning, match=sentence):
        of_subset(root, 2)
    with pytest.warns(UserWarning, match=r"^\d of 10 classes are too small within train_subset \[3, 8\]"):
        MNIST5k(train_subset=[3, 8], val_split=0).setup("fit")


def test_images_in_mixed_order_are_taken_in_file_order():
    assert subset_index(torch.tensor([0, 1, 0, 1]), 1, 3, seed=0) == slice(1, 3)
    assert subset_index(torch.tensor([[0.0], [0.0], [1.0]]), 1, 3, seed=0) == slice(1, 3)
    assert subset_index(torch.tensor([2, 2, 0, 0, 1, 1]), 0, 3, seed=0).tolist() != [0, 1, 2]
