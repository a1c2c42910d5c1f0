"""The DataModule behind every image source: hold-out, sizes, normalisation, loaders."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from bnn_lightning.data.corruptions import IMAGES, KINDS, SEVERITIES, corrupted
from bnn_lightning.data.loader import BatchLoader, EpochSampler, Images


class DataNotFoundError(FileNotFoundError):
    """A data set is not where it was looked for; the message says what, where, and what works instead."""


class ImageData(LightningDataModule):
    """Images in memory, with a hold-out from the training set: seeded, stratified, disjoint, never the test set.

    The hold-out is halved. The selection half is what validation uses (best checkpoint, plateau); the calibration half
    selects nothing, so that temperatures and thresholds can be fitted on it.

    Args:
        root: the folder of the data; null means the folder in the environment variable BNN_DATA, else data/.
        batch_size: images in a training batch.
        eval_batch_size: images in a batch of validation, test and prediction.
        val_split: share of the training images that is held out, 0 for none.
        train_subset: use only these training images, in file order: the first n, or [start, stop].
        image_size: resize to this many pixels a side; null means what the network wants, else the images' own size.
        channels: convert to 1 (grey) or 3 (RGB) channels; null leaves them as they are.
        normalize: give each channel mean 0 and standard deviation 1 over the training images; false leaves values in
            [0, 1], where a black pixel is 0 and adds neither signal nor noise.
        crop_padding: augmentation of training batches: pad by this many pixels and crop at a random place.
        flip: augmentation of training batches: mirror left to right at random.
        ood: other images, such as [NotMNIST, FashionMNIST], prepared as these are: test says how well uncertainty
            tells them from the test images.
        resident: whether training images are kept on the device.
        corruptions: whether test also measures 2,000 test images under five corruptions of five severities.
        seed: of the hold-out and of the order of training batches.
    """

    class_names: tuple[str, ...] = ()
    native_channels: int = 1
    native_size: int | None = None
    is_one_set: bool = True
    """Whether the name says which images these are; not so for a user's own folders."""
    splits_test_by_seed: bool = False
    """Whether which images are test images is decided by ``seed``."""
    training_images_of: str | None = None
    """The name of a data set whose training set holds these images: a checkpoint trained there is not tested here."""

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 256,
        eval_batch_size: int = 500,
        val_split: float = 0.2,
        train_subset: int | list[int] | None = None,
        image_size: int | None = None,
        channels: int | None = None,
        normalize: bool = True,
        crop_padding: int = 0,
        flip: bool = False,
        ood: "list[ImageData] | None" = None,
        resident: bool = False,
        corruptions: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")
        if not 0 <= val_split < 1:
            raise ValueError(f"val_split must be from 0 to below 1, such as 0.2, got {val_split}.")
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be 1 or more pixels, got {image_size}.")
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels}.")
        if crop_padding < 0:
            raise ValueError(f"crop_padding must be 0 or more pixels, got {crop_padding}.")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}.")
        self.name = type(self).__name__
        self.root = Path(root or os.environ.get("BNN_DATA") or "data")
        self.root_is_given = root is not None
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_split, self.train_subset = val_split, _as_range(train_subset)
        self.image_size, self.channels = image_size, channels
        self.normalize = normalize
        self.mean: list[float] = []
        self.std: list[float] = []
        """Of each channel over the training images, 255 being 1: what every image is normalised with; or 0 and 1."""
        self.crop_padding, self.flip = crop_padding, flip
        self.ood, self.corruptions = list(ood or []), corruptions
        self.resident = resident
        self.seed = seed
        self.notes: list[str] = []
        """What must stand beside every result, such as "unofficial pixels"."""
        self.unreadable: dict[Path, str] = {}
        """Files that were left out, with the reason."""
        self.train: Images | None = None
        self.selection: Images | None = None
        self.calibration: Images | None = None
        self.test: Images | None = None
        self.test_sets: dict[str, Images] = {}
        """What test runs on: the test images under this source's name, then ``ood/NAME``, then ``KIND/SEVERITY``."""
        self.predict: Images | None = None
        self.predicts_test_images = False
        """Whether ``predict`` runs on the test images, whatever else a source would take."""

    @abstractmethod
    def load_train(self) -> Images:
        """All training images, in file order."""

    @abstractmethod
    def load_test(self) -> Images:
        """The test images."""

    def load_holdout(self) -> Images | None:
        """A hold-out of the source's own; None has it taken from the training images by ``val_split``."""
        return None

    def load_predict(self) -> Images:
        """What ``predict`` runs on: the test images, unless a source knows better."""
        return self.load_test()

    def load_ood(self) -> Images:
        """What stands for images from elsewhere beside another source's: the test images, or all that nothing saw."""
        return self.load_test()

    def predict_names(self) -> list[str]:
        """What identifies each image of ``load_predict`` to a person."""
        if self.predict is None:
            raise RuntimeError("predict_names() needs setup('predict') before it.")
        return [f"test/{index}" for index in range(len(self.predict))]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        return self.channels or self.native_channels

    @property
    def num_train(self) -> int:
        """N: the distinct images trained on, after subset and hold-out."""
        return len(_ready(self.train, "fit"))

    def setup(self, stage: str | None = None) -> None:
        if stage in ("fit", "validate", None) and self.train is None:
            self._setup_train()
        if stage in ("test", None) and self.test is None:
            self.test = self._converted(self.load_test())
            self.test_sets = {self.name or "test": self.test}
        if stage in ("predict", None) and self.predict is None:
            self.predict = self._converted(self.load_test() if self.predicts_test_images else self.load_predict())
        if not self.mean and not self.normalize:
            self.mean, self.std = [0.0] * self.in_channels, [1.0] * self.in_channels
        if not self.mean:
            # Test images are normalised with the training images' constants, so those are needed here too.
            if self.train is None:
                self._setup_train()
            self.mean, stds = _ready(self.train, "fit").mean_and_std()
            self.std = [std or 1.0 for std in stds]  # a channel that never changes has nothing to scale
        if stage in ("test", None) and len(self.test_sets) == 1:
            self._add_test_sets(_ready(self.test, "test"))

    def _add_test_sets(self, test: Images) -> None:
        for other in self.ood:
            if self.is_one_set and other.is_one_set and not other.root_is_given:
                other.root = self.root
            same_name = self.name in (other.name, other.training_images_of) or other.name == self.training_images_of
            if same_name and (self.is_one_set or self.root.resolve() == other.root.resolve()):
                raise ValueError(f"ood must be images from elsewhere, got {other.name} for tests on {self.name}.")
            other.prepare_like(self.describe(), labelled=False)
            name, number = f"ood/{other.name}", 2
            while name in self.test_sets:
                name, number = f"ood/{other.name}-{number}", number + 1
            self.test_sets[name] = other._converted(other.load_ood())
            self.notes += [note for note in other.notes if note not in self.notes]
        if self.corruptions:
            chosen, _ = stratified_split(test.labels, min(1, IMAGES / len(test)), seed=0)
            clean = test[chosen]
            self.test_sets["clean/0"] = clean
            for kind in KINDS:
                for severity in SEVERITIES:
                    worse = Images(corrupted(clean.pixels, kind, severity), clean.labels)
                    self.test_sets[f"{kind}/{severity}"] = worse

    def _setup_train(self) -> None:
        images = self.load_train()
        if self.train_subset is not None:
            chosen = slice(*self.train_subset)
            if chosen.stop > len(images):
                raise ValueError(f"train_subset must lie within the {len(images)} training images, got {chosen.stop}.")
            images = images[chosen]
        holdout = self.load_holdout()
        if holdout is None:
            held_out, train = stratified_split(images.labels, self.val_split, self.seed)
            if len(train) == 0:
                raise ValueError(f"val_split={self.val_split} leaves none of {len(images)} images to train on.")
            images, holdout = images[train], images[held_out]
        calibration, selection = stratified_split(holdout.labels, 0.5, self.seed + 1)
        self.train = self._converted(images)
        self.selection, self.calibration = self._converted(holdout[selection]), self._converted(holdout[calibration])

    def _converted(self, images: Images) -> Images:
        size = self.image_size or self.native_size
        if size is None:
            raise ValueError(f"image_size must be given for {self.name}, whose images have no one size, such as 32.")
        return images.converted(self.in_channels, size)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data, in plain values: enough to prepare any other images the same way."""
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "image_size": self.image_size or self.native_size,
            "channels": self.in_channels,
            "mean": self.mean,
            "std": self.std,
            "notes": list(self.notes),
        }

    def prepare_like(self, description: dict[str, Any], labelled: bool = True) -> None:
        """Prepares these images as those of ``description`` were (see :meth:`describe`), so that a network knows them.

        Raises:
            ValueError: when ``labelled`` and the classes are not the same: labels would mean different things.
        """
        if labelled and list(self.class_names) != description["class_names"]:
            raise ValueError(
                f"{self.name} has the classes {_few(self.class_names)}, but the checkpoint was trained on "
                f"{description['name']} with {_few(description['class_names'])}: its labels would mean nothing. "
                "`bnn predict` needs no labels."
            )
        self.image_size, self.channels = description["image_size"], description["channels"]
        self.mean, self.std = description["mean"], description["std"]

    def train_dataloader(self) -> BatchLoader:
        return self._loader(_ready(self.train, "fit"), train=True)

    def val_dataloader(self) -> BatchLoader | list:
        selection = _ready(self.selection, "fit")
        return self._loader(selection) if len(selection) else []

    def calibration_dataloader(self) -> BatchLoader:
        """The half of the hold-out that selected nothing."""
        return self._loader(_ready(self.calibration, "fit"))

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The test images' loader; where there is more to test on, a list with that of each of ``test_sets``."""
        _ready(self.test, "test")
        loaders = [self._loader(images) for images in self.test_sets.values()]
        return loaders if len(loaders) > 1 else loaders[0]

    def predict_dataloader(self) -> BatchLoader:
        return self._loader(_ready(self.predict, "predict"))

    def _loader(self, images: Images, train: bool = False) -> BatchLoader:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        sampler = EpochSampler(len(images), shuffle=train, seed=self.seed, rank=rank, world_size=world_size)
        if not train:
            return BatchLoader(images, self.eval_batch_size, self.mean, self.std, sampler, device=device)
        if self.resident:
            images = Images(images.pixels.to(device), images.labels.to(device))
        augmentation = (self.crop_padding, self.flip)
        return BatchLoader(images, self.batch_size, self.mean, self.std, sampler, *augmentation, device=device)


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Two disjoint index lists in rising order: ``round(share * n)`` examples, and the rest.

    Every class gives its share to within one example.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    count = round(share * len(labels))
    # Evenly spaced places in a list sorted by class visit every class in proportion.
    places = ((torch.arange(count) + 0.5) * len(labels) / max(count, 1)).long()
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[by_class[places]] = True
    return chosen.nonzero().flatten(), (~chosen).nonzero().flatten()


def _as_range(subset: int | list[int] | None) -> tuple[int, int] | None:
    if subset is None:
        return None
    start, stop = (0, subset) if isinstance(subset, int) else (subset if len(subset) == 2 else (0, 0))
    if not 0 <= start < stop:
        raise ValueError(f"train_subset must be a number of images or [start, stop] with start < stop, got {subset}.")
    return start, stop


def _ready(images: Images | None, stage: str) -> Images:
    if images is None:
        raise RuntimeError(f"setup({stage!r}) must run before this.")
    return images


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]}, ... {names[-1]}"
