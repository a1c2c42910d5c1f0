"""Data: one LightningDataModule per source of images or table rows; all hold them in memory and serve batches."""

from bnn_lightning.data.base import ImageData
from bnn_lightning.data.image_folder import ImageFolder
from bnn_lightning.data.loader import BatchLoader, Images
from bnn_lightning.data.mnist5k import MNIST5k
from bnn_lightning.data.notmnist import NotMNIST, RenderedLetters
from bnn_lightning.data.rotated_digits import RotatedDigits
from bnn_lightning.data.source import DataNotFoundError, DataSource
from bnn_lightning.data.table import Table
from bnn_lightning.data.torchvision_sets import CIFAR10, CIFAR100, KMNIST, MNIST, SVHN, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "KMNIST",
    "MNIST",
    "SVHN",
    "BatchLoader",
    "DataNotFoundError",
    "DataSource",
    "FashionMNIST",
    "ImageData",
    "ImageFolder",
    "Images",
    "MNIST5k",
    "NotMNIST",
    "RenderedLetters",
    "RotatedDigits",
    "Table",
]
