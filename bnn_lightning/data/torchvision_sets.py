"""The data sets that torchvision can download (MNIST family, CIFAR, SVHN), read from local files where they exist."""

import hashlib
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets

from bnn_lightning.data.base import ImageData
from bnn_lightning.data.downloads import fetch
from bnn_lightning.data.idx import read_labelled
from bnn_lightning.data.loader import Images
from bnn_lightning.data.source import DataNotFoundError
from bnn_lightning.wording import first_line

_DIGITS = tuple("0123456789")


class _Downloadable(ImageData):
    """A data set that torchvision can download."""

    def _download(
        self, looked_for: str, folder: Path, is_there: Callable[[], bool], download: Callable[[str], Any]
    ) -> None:
        try:
            fetch(self.root, type(self).__name__, is_there, download)
        except (OSError, RuntimeError) as error:  # torchvision raises either for failed downloads and wrong checksums
            reason = first_line(error).rstrip(":")
            own = " Pictures of your own are --data ImageFolder." if self.root_is_given and self.root.is_dir() else ""
            raise DataNotFoundError(
                f"{self.name} was not found: looked for {looked_for} in {folder}, and downloading failed ({reason}). "
                "Put the files there, or name their folder with --data.root or BNN_DATA; "
                f"`--data MNIST5k` works without the internet.{own}"
            ) from None


class MNIST(_Downloadable):
    """70,000 handwritten digits, 28x28 grey (LeCun et al. 1998)."""

    class_names = _DIGITS
    native_size = 28
    _dataset: Any = datasets.MNIST

    def load_train(self) -> Images:
        return self._load("train")

    def load_test(self) -> Images:
        return self._load("t10k")

    def _load(self, part: str) -> Images:
        folder = self.root / type(self).__name__ / "raw"
        names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")

        def is_there() -> bool:
            return all(_plain_or_gz(folder / name).is_file() for name in names)

        if not is_there():
            looked_for = " and ".join(f"{name}[.gz]" for name in names)
            self._download(looked_for, folder, is_there, lambda into: self._dataset(into, download=True))
        images, labels = (_plain_or_gz(folder / name) for name in names)
        return read_labelled(images, labels, self.native_size, self.num_classes)


class FashionMNIST(MNIST):
    """70,000 articles of clothing, 28x28 grey (Xiao et al. 2017, arXiv:1708.07747)."""

    class_names = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    _dataset = datasets.FashionMNIST


class KMNIST(MNIST):
    """70,000 cursive Japanese characters, 28x28 grey (Clanuwat et al. 2018, arXiv:1812.01718)."""

    class_names = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    _dataset = datasets.KMNIST


def _plain_or_gz(path: Path) -> Path:
    return path if path.is_file() else path.with_name(f"{path.name}.gz")


class CIFAR10(_Downloadable):
    """60,000 photographs of ten classes, 32x32 RGB (Krizhevsky 2009).

    Files whose checksum is not the published one are read too, with a warning and the note "unofficial pixels".
    """

    class_names: tuple[str, ...] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    native_channels = 3
    native_size = 32
    _dataset: Any = datasets.CIFAR10
    _labels = b"labels"

    def load_train(self) -> Images:
        return self._load(self._dataset.train_list)

    def load_test(self) -> Images:
        return self._load(self._dataset.test_list)

    def _load(self, files: list[list[str]]) -> Images:
        folder = self.root / self._dataset.base_folder

        def is_there() -> bool:
            return all((folder / name).is_file() for name, _ in files)

        if not is_there():
            looked_for = ", ".join(name for name, _ in files)
            self._download(looked_for, folder, is_there, lambda into: self._dataset(into, download=True))
        pixels, labels = [], []
        for name, md5 in files:
            content = (folder / name).read_bytes()
            if hashlib.md5(content).hexdigest() != md5 and not self.notes:
                self.notes.append("unofficial pixels")
                warnings.warn(
                    f"{folder / name} is not the published file: results carry the note 'unofficial pixels'.",
                    stacklevel=2,
                )
            images = self._images(_unpickle_arrays(content, folder / name), folder / name)
            pixels.append(images.pixels)
            labels.append(images.labels)
        return Images(torch.cat(pixels), torch.cat(labels))

    def _images(self, batch: Any, path: Path) -> Images:
        try:
            pixels = torch.from_numpy(np.array(batch[b"data"], np.uint8)).view(-1, 3, 32, 32)
            images = Images(pixels, torch.tensor(batch[self._labels], dtype=torch.int64))
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"{path} holds no images of 3x32x32 pixels with labels ({error}).") from None
        if len(images) and not 0 <= images.labels.min() <= images.labels.max() < self.num_classes:
            raise ValueError(f"{path} must hold labels from 0 to {self.num_classes - 1}.")
        return images


_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""


class CIFAR100(CIFAR10):
    """60,000 photographs of a hundred classes, 32x32 RGB (Krizhevsky 2009)."""

    class_names = tuple(_CIFAR100_CLASSES.split())
    _dataset = datasets.CIFAR100
    _labels = b"fine_labels"


class _ArraysOnly(pickle.Unpickler):
    """Loads CIFAR's files, which are pickles, safely: only the functions that build numpy arrays may be called."""

    allowed = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not part of an array")
        return super().find_class(module, name)


def _unpickle_arrays(content: bytes, path: Path) -> dict[bytes, Any]:
    try:
        return _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path} is not a CIFAR batch ({error}); fetch it again.") from None


class SVHN(_Downloadable):
    """99,289 house numbers, 32x32 RGB (Netzer et al. 2011)."""

    class_names = _DIGITS
    native_channels = 3
    native_size = 32

    def load_train(self) -> Images:
        return self._load("train")

    def load_test(self) -> Images:
        return self._load("test")

    def _load(self, split: str) -> Images:
        from scipy.io import loadmat  # imported here, because it is slow and only this data set needs it

        path = self.root / f"{split}_32x32.mat"
        if not path.is_file():
            self._download(path.name, self.root, path.is_file, lambda into: datasets.SVHN(into, split, download=True))
        try:
            content = loadmat(path)
            pixels = torch.from_numpy(np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1)))
            labels = torch.from_numpy(content["y"].astype(np.int64)).flatten() % 10  # 0 is stored as 10
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{path} is not a file of SVHN ({error}); fetch it again.") from None
        return Images(pixels, labels)
