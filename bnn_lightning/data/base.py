"""ImageData, the base class of all image sources: hold-out, sizes, normalisation, loaders."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torchvision.transforms.v2 import Transform

from bnn_lightning.data.augmentation import Augmentation, check_transforms
from bnn_lightning.data.corruptions import KINDS, NUM_IMAGES, SEVERITIES, corrupted
from bnn_lightning.data.loader import BatchLoader, EpochSampler, Images
from bnn_lightning.data.normalisation import check_mean_and_std, per_channel
from bnn_lightning.data.splits import balanced_class_weights, start_and_stop, stratified_split, warn_of_small_classes
from bnn_lightning.files import expanded


class DataNotFoundError(FileNotFoundError):
    """A data set was not found; the message says what is missing, where it was looked for, and what works instead."""


class ImageData(LightningDataModule):
    """Images in memory, with a hold-out taken from the training images: seeded, stratified, never from the test set.

    The hold-out is halved. Validation runs on the selection half (best checkpoint, plateau schedule). The calibration
    half is used neither for training nor for model selection, so that temperatures and thresholds can be fitted on it.

    Args:
        root: the folder of the data, with ~ and $VARIABLES; null means the environment variable BNN_DATA, else data/.
        batch_size: images in a training batch.
        eval_batch_size: images in a batch of validation, test and prediction.
        val_split: share of the training images that is held out, 0 for none.
        train_subset: use only these training images, in file order: the first n, or [start, stop].
        image_size: resize to this many pixels a side; null means what the network wants, else the images' own size.
        channels: convert to 1 (grey) or 3 (RGB) channels; null converts nothing.
        normalize: give each channel mean 0 and standard deviation 1 over the training images; false leaves values in
            [0, 1], where a black pixel is 0 and adds neither signal nor noise.
        mean, std: normalise with these instead, one number or one for each channel on a scale where 255 is 1: those of
            the images that a pretrained network was trained on.
        crop_padding: augmentation of training batches: pad by this many pixels and crop at a random place.
        flip: augmentation of training batches: mirror left to right at random.
        transforms: augmentation of training batches after these: transforms of torchvision.transforms.v2, or your own
            subclasses of its Transform, that take a uint8 image alone and keep its size; called for image after image.
        class_weights: balanced weights the nll of an image by N / (K n_k), with n_k of N images in its class of K; null
            weighs all alike.
        sampling: balanced draws the images of an epoch with replacement, every class as often; null takes each image
            once. N is the same.
        ood: other images, such as [NotMNIST, FashionMNIST], resized and normalised in the same way: test measures how
            well uncertainty separates them from the test images.
        resident: whether training images are kept on the device.
        corruptions: whether test also measures 2,000 test images under five corruptions of five severities.
        seed: of the hold-out and of the order of training batches.

    Raises:
        ValueError: when an argument is out of range; the message names it.
    """

    class_names: tuple[str, ...] = ()
    native_channels: int = 1
    native_size: int | None = None
    name_identifies_images: bool = True
    """Whether the class name alone says which images these are; false for folders of a user's own pictures."""
    splits_test_by_seed: bool = False
    """Whether ``seed`` decides which images are test images, because the source has no test set of its own."""
    training_images_of: str | None = None
    """The data set whose training set contains these images; a checkpoint trained on it must not be tested on them."""
    found: object = None
    """What a source that has to look for its images has found; a verb prints it before its work."""

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
        mean: float | list[float] | None = None,
        std: float | list[float] | None = None,
        crop_padding: int = 0,
        flip: bool = False,
        transforms: list[Transform] | None = None,
        class_weights: Literal["balanced"] | None = None,
        sampling: Literal["balanced"] | None = None,
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
        for name, choice in (("class_weights", class_weights), ("sampling", sampling)):
            if choice not in (None, "balanced"):
                raise ValueError(f"{name} must be balanced or null, got {choice}.")
        if class_weights and sampling:
            raise ValueError("sampling must be null with class_weights, got balanced: rare classes would count twice.")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}.")
        check_mean_and_std(mean, std, normalize)
        self.name = type(self).__name__
        self.root = expanded(root or os.environ.get("BNN_DATA") or "data")
        self.root_is_given = root is not None
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_split, self.train_subset = val_split, start_and_stop(train_subset)
        self.image_size, self.channels = image_size, channels
        self.normalize, self._given_mean_and_std = normalize, (mean, std)
        self.mean: list[float] = []
        self.std: list[float] = []
        """``mean`` and ``std`` of each channel normalise all images, on a scale where 255 is 1; empty before setup.

        They are those that were given, or are computed over the training images, or are 0 and 1 where ``normalize`` is
        false.
        """
        self.augmentation = Augmentation(crop_padding, flip, tuple(transforms or ()))
        self.class_weights, self.sampling = class_weights, sampling
        self.ood, self.corruptions = list(ood or []), corruptions
        self.resident = resident
        self.seed = seed
        self.notes: list[str] = []
        """Remarks that every result is reported with, such as "unofficial pixels"."""
        self.unreadable: dict[Path, str] = {}
        """Files that could not be read and were left out, each with the reason."""
        self.train: Images | None = None
        self.selection: Images | None = None
        self.calibration: Images | None = None
        self.test: Images | None = None
        self.test_sets: dict[str, Images] = {}
        """The sets that test runs on: the test images by this source's name, then ``ood/NAME``, ``KIND/SEVERITY``."""
        self.predict: Images | None = None
        self.predicts_test_images = False
        """Whether ``predict`` runs on the test images instead of those of ``load_predict``."""

    @abstractmethod
    def load_train(self) -> Images:
        """All training images, in file order."""

    @abstractmethod
    def load_test(self) -> Images:
        """The test images."""

    def split_settings(self, of_holdout: bool) -> tuple[str, ...]:
        """Names of the settings that decide which images are held out, or else which are test images."""
        if of_holdout:
            return ("seed", "val_split", "train_subset")
        return ("seed",) if self.splits_test_by_seed else ()

    def load_holdout(self) -> Images | None:
        """The source's own validation images; None where the hold-out is to be split off the training images."""
        return None

    def load_predict(self) -> Images:
        """The images that ``predict`` runs on: the test images, unless a subclass has others."""
        return self.load_test()

    def load_ood(self) -> Images:
        """The images that this source supplies when it is another's out-of-distribution set: its test images."""
        return self.load_test()

    def predict_names(self) -> list[str]:
        """A readable name for each image of ``load_predict``, such as its file; call ``setup("predict")`` first."""
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
        """N, the number of distinct training images after subset and hold-out; call ``setup("fit")`` first."""
        return len(_after_setup(self.train, "fit"))

    @property
    def loss_weights(self) -> list[float] | None:
        """The weight of each class in the training loss; None where all weigh the same. Call ``setup("fit")`` first."""
        if self.class_weights is None:
            return None
        return balanced_class_weights(_after_setup(self.train, "fit").labels, self.num_classes)

    @property
    def departures(self) -> list[str]:
        """What makes the training loss another one than that of the training images as they are."""
        settings = {"class weights": self.class_weights, "balanced sampling": self.sampling}
        return [name for name, value in settings.items() if value]

    def setup(self, stage: str | None = None) -> None:
        if stage in ("fit", "validate", None) and self.train is None:
            self._setup_train()
        if stage in ("test", None) and self.test is None:
            self.test = self._converted(self.load_test())
            self.test_sets = {self.name or "test": self.test}
        if stage in ("predict", None) and self.predict is None:
            self.predict = self._converted(self.load_test() if self.predicts_test_images else self.load_predict())
        if not self.mean:
            given = self._given_mean_and_std if self.normalize else (0.0, 1.0)
            self.mean, self.std = per_channel(*given, self.in_channels)
        if not self.mean:
            # Test images are normalised with the mean and std of the training images, which are computed here.
            if self.train is None:
                self._setup_train()
            self.mean, stds = _after_setup(self.train, "fit").mean_and_std()
            self.std = [std or 1.0 for std in stds]  # a constant channel must not be divided by 0
        if stage in ("test", None) and len(self.test_sets) == 1:
            self._add_test_sets(_after_setup(self.test, "test"))

    def _add_test_sets(self, test: Images) -> None:
        for other in self.ood:
            if self.name_identifies_images and other.name_identifies_images and not other.root_is_given:
                other.root = self.root
            same_name = self.name in (other.name, other.training_images_of) or other.name == self.training_images_of
            if same_name and (self.name_identifies_images or self.root.resolve() == other.root.resolve()):
                raise ValueError(f"ood must be images from elsewhere, got {other.name} for tests on {self.name}.")
            other.prepare_like(self.describe(), labelled=False)
            name, number = f"ood/{other.name}", 2
            while name in self.test_sets:
                name, number = f"ood/{other.name}-{number}", number + 1
            self.test_sets[name] = other._converted(other.load_ood())
            self.notes += [note for note in other.notes if note not in self.notes]
        if self.corruptions:
            sample, _ = stratified_split(test.labels, min(1, NUM_IMAGES / len(test)), seed=0)
            clean = test[sample]
            self.test_sets["clean/0"] = clean
            for kind in KINDS:
                for severity in SEVERITIES:
                    pixels = corrupted(clean.pixels, kind, severity)
                    self.test_sets[f"{kind}/{severity}"] = Images(pixels, clean.labels)

    def _setup_train(self) -> None:
        images = self.load_train()
        if self.train_subset is not None:
            subset = slice(*self.train_subset)
            if subset.stop > len(images):
                raise ValueError(f"train_subset must lie within the {len(images)} training images, got {subset.stop}.")
            images = images[subset]
        holdout = self.load_holdout()
        if holdout is None:
            held_out, train = stratified_split(images.labels, self.val_split, self.seed)
            if len(train) == 0:
                raise ValueError(f"val_split={self.val_split} leaves none of {len(images)} images to train on.")
            images, holdout = images[train], images[held_out]
        calibration, selection = stratified_split(holdout.labels, 0.5, self.seed + 1)
        self.train = self._converted(images)
        self.selection, self.calibration = self._converted(holdout[selection]), self._converted(holdout[calibration])
        parts = {"train": self.train, "selection": self.selection, "calibration": self.calibration}
        warn_of_small_classes({name: part.labels for name, part in parts.items()}, self.class_names)
        check_transforms(self.augmentation.transforms, self.train[:1].pixels[0])

    def _converted(self, images: Images) -> Images:
        size = self.image_size or self.native_size
        if size is None:
            raise ValueError(f"image_size must be given for {self.name}, whose images have no one size, such as 32.")
        return images.converted(self.in_channels, size)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint stores about the data, in plain values: enough to prepare other images the same way."""
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "image_size": self.image_size or self.native_size,
            "channels": self.in_channels,
            "mean": self.mean,
            "std": self.std,
            "notes": list(self.notes),
        }

    def number_classes_like(self, class_names: Sequence[str]) -> None:
        """Keeps the order of a checkpoint's classes where training goes on; most sources have but one order."""

    def prepare_like(self, description: dict[str, Any], labelled: bool = True) -> None:
        """Takes over image size, channels and normalisation from ``description``, which :meth:`describe` returned.

        Raises:
            ValueError: when ``labelled`` and the classes are not the same: labels would mean different things.
        """
        if labelled and list(self.class_names) != description["class_names"]:
            raise ValueError(
                f"{self.name} has the classes {abridged(self.class_names)}, but the checkpoint was trained on "
                f"{description['name']} with {abridged(description['class_names'])}: its labels would mean nothing. "
                "`bnn predict` needs no labels."
            )
        self.image_size, self.channels = description["image_size"], description["channels"]
        self.mean, self.std = description["mean"], description["std"]

    def train_dataloader(self) -> BatchLoader:
        return self._loader(_after_setup(self.train, "fit"), train=True)

    def val_dataloader(self) -> BatchLoader | list:
        selection = _after_setup(self.selection, "fit")
        return self._loader(selection) if len(selection) else []

    def calibration_dataloader(self) -> BatchLoader:
        """Serves the calibration half of the hold-out (unused for training and model selection)."""
        return self._loader(_after_setup(self.calibration, "fit"))

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The loader of the test images; where there are several ``test_sets``, a list with the loader of each."""
        _after_setup(self.test, "test")
        loaders = [self._loader(images) for images in self.test_sets.values()]
        return loaders if len(loaders) > 1 else loaders[0]

    def predict_dataloader(self) -> BatchLoader:
        return self._loader(_after_setup(self.predict, "predict"))

    def _loader(self, images: Images, train: bool = False) -> BatchLoader:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        labels = images.labels if train and self.sampling == "balanced" else None
        sampler = EpochSampler(len(images), train, self.seed, rank, world_size, labels)
        if not train:
            return BatchLoader(images, self.eval_batch_size, self.mean, self.std, sampler, device=device)
        if self.resident:
            images = Images(images.pixels.to(device), images.labels.to(device))
        return BatchLoader(images, self.batch_size, self.mean, self.std, sampler, self.augmentation, device)


def _after_setup(images: Images | None, stage: str) -> Images:
    if images is None:
        raise RuntimeError(f"setup({stage!r}) must run before this.")
    return images


def abridged(names: Sequence[str]) -> str:
    """The names of classes in a sentence, of many the first and the last."""
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]}, ... {names[-1]}"
