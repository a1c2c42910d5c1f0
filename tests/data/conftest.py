"""Images and folders of pictures that the tests of data share."""

import warnings

import numpy as np
import pytest
from PIL import Image

from bnn_lightning.data import ImageFolder, MNIST5k

NAMES = ("a.png", "b.png", "in/c.png", "in/d 2.png", "other/a.png")
CLASSES = {"a.png": "cat", "b.png": "dog", "in/c.png": "cat", "in/d 2.png": "dog"}


@pytest.fixture(scope="module")
def digits():
    data = MNIST5k(image_size=32)
    data.setup()
    return data


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Five pictures, of which two have the same name."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(NAMES):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * number, np.uint8)).save(path)
    return tmp_path / "root"


def labelled(root, text, labels="labels.csv", sorted_into=None):
    """The classes by file of the training pictures, and what was said about the table, or the folder."""
    (root / labels).write_text(text)
    data = ImageFolder(root=str(root), labels=sorted_into or labels, image_size=8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pictures, numbers = data._labelled("train")
    classes = {
        "/".join(each.below): data.class_names[label] for each, label in zip(pictures, numbers.tolist(), strict=True)
    }
    return classes, " ".join(str(each.message) for each in caught)


def sort_into(folder, places):
    """Writes a copy of each picture, or the bytes that are given, to a place below the folder."""
    for place, content in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
