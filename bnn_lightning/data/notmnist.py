"""notMNIST: letters A to J from many fonts, in MNIST's file format."""

import numpy as np
import torch

from bnn_lightning.data.base import DataNotFoundError, ImageData, stratified_split
from bnn_lightning.data.idx import read_idx
from bnn_lightning.data.loader import Images


class NotMNIST(ImageData):
    """Letters A-J from many fonts, 28x28 grey (Bulatov 2011), from IDX files in ``root/notMNIST``.

    The files hold one set without a split: exact repeats are removed, then a seeded, stratified fifth is the test set.
    """

    class_names = tuple("ABCDEFGHIJ")
    native_size = 28

    def load_train(self) -> Images:
        return self._load()[1]

    def load_test(self) -> Images:
        return self._load()[0]

    def _load(self) -> tuple[Images, Images]:
        folders = (self.root / "notMNIST", self.root / "notMNIST" / "raw", self.root / "NotMNIST" / "raw")
        names = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
        for folder in folders:
            for suffix in ("", ".gz"):
                paths = [folder / f"{name}{suffix}" for name in names]
                if all(path.is_file() for path in paths):
                    images = Images(read_idx(paths[0], 3).unsqueeze(1), read_idx(paths[1], 1).long())
                    return self._split(images)
        raise DataNotFoundError(
            f"NotMNIST was not found: looked for {names[0]}[.gz] and {names[1]}[.gz] in {folders[0]} and its raw/. "
            "Put the two files there, or name their folder with --data.root or BNN_DATA."
        )

    def _split(self, images: Images) -> tuple[Images, Images]:
        _, first = np.unique(images.pixels.flatten(1).numpy(), axis=0, return_index=True)
        images = images[torch.from_numpy(np.sort(first))]
        test, train = stratified_split(images.labels, 0.2, self.seed)
        return images[test], images[train]
