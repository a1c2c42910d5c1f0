"""Image data: one LightningDataModule per source; all of them hold images in memory and serve batches."""

from bnn_lightning.data.base import DataNotFoundError, ImageData
from bnn_lightning.data.image_folder import ImageFolder
from bnn_lightning.data.loader import BatchLoader, Images
from bnn_lightning.data.mnist5k import MNIST5k
from bnn_lightning.data.notmnist import NotMNIST, RenderedLetters
from bnn_lightning.data.torchvision_sets import CIFAR10, CIFAR100, KMNIST, MNIST, SVHN, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "KMNIST",
    "MNIST",
    "SVHN",
    "BatchLoader",
    "DataNotFoundError",
    "FashionMNIST",
    "ImageData",
    "ImageFolder",
    "Images",
    "MNIST5k",
    "NotMNIST",
    "RenderedLetters",
]
