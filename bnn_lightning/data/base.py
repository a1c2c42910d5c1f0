"""ImageData, the base class of all image sources: sizes, normalisation, augmentation, other sets of test images."""

import os
from abc import abstractmethod
from typing import Any, Literal

from torch import Tensor
from torchvision.transforms.v2 import Transform

from bnn_lightning.data.augmentation import Augmentation, check_transforms
from bnn_lightning.data.corruptions import KINDS, NUM_IMAGES, SEVERITIES, corrupted
from bnn_lightning.data.loader import BatchLoader, EpochLoader, Images
from bnn_lightning.data.normalisation import check_mean_and_std, per_channel
from bnn_lightning.data.source import DataSource, after_setup
from bnn_lightning.data.splits import (
    balanced_class_weights,
    start_and_stop,
    stratified_split,
    subset_index,
    warn_of_small_classes,
)
from bnn_lightning.files import expanded


class ImageData(DataSource):
    """Images in memory, with a hold-out taken from the training images: seeded, stratified, never from the test set.

    Labels are classes, or numbers where a source has ``target_names``.

    Args:
        root: the folder of the data, with ~ and $VARIABLES; null means the environment variable BNN_DATA, else data/.
        batch_size: images in a training batch.
        eval_batch_size: images in a batch of validation, test and prediction.
        val_split: share of the training images that is held out, 0 for none.
        train_subset: use only these training images, in file order: the first n, or [start, stop]. Where the files have
            one class after the other, as folders of classes do, in an order that is drawn by ``seed`` and mixes them.
        image_size: resize to this many pixels a side; null means what the network wants, else the images' own size.
        channels: convert to 1 (grey) or 3 (RGB) channels; null converts nothing.
        normalize: give each channel mean 0 and standard deviation 1 over the training images; false leaves values in
            [0, 1], where a black pixel is 0 and adds neither signal nor noise.
        mean: normalise with this instead, one number or one for each channel on a scale where 255 is 1: that of the
            images that a pretrained network was trained on.
        std: their standard deviation, in the same way.
        crop_padding: augmentation of training batches: pad by this many pixels and crop at a random place.
        flip: augmentation of training batches: mirror left to right at random.
        affine: augmentation of training batches: map each image about its centre by a random 2 x 2 matrix whose entries
            differ from those of the identity by up to this much. 0.2 turns by up to 11 degrees, shears and stretches by
            up to 20 %; 0 maps nothing.
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
        seed: of the hold-out, of the order of training batches, and of a subset of images that lie class by class.

    Raises:
        ValueError: when an argument is out of range; the message names it.
    """

    native_channels: int = 1
    native_size: int | None = None

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
        affine: float = 0.0,
        transforms: list[Transform] | None = None,
        class_weights: Literal["balanced"] | None = None,
        sampling: Literal["balanced"] | None = None,
        ood: "list[ImageData] | None" = None,
        resident: bool = False,
        corruptions: bool = False,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, val_split, seed)
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be 1 or more pixels, got {image_size}.")
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels}.")
        if crop_padding < 0:
            raise ValueError(f"crop_padding must be 0 or more pixels, got {crop_padding}.")
        if not 0 <= affine < 1:
            raise ValueError(f"affine must be 0 or more and below 1, got {affine}.")
        for name, choice in (("class_weights", class_weights), ("sampling", sampling)):
            if choice not in (None, "balanced"):
                raise ValueError(f"{name} must be balanced or null, got {choice}.")
        if class_weights and sampling:
            raise ValueError("sampling must be null with class_weights, got balanced: rare classes would count twice.")
        check_mean_and_std(mean, std, normalize)
        self.root = expanded(root or os.environ.get("BNN_DATA") or "data")
        self.root_is_given = root is not None
        self.train_subset = start_and_stop(train_subset)
        self.image_size, self.channels = image_size, channels
        self.normalize, self._given_mean_and_std = normalize, (mean, std)
        self.mean: list[float] = []
        self.std: list[float] = []
        """``mean`` and ``std`` of each channel normalise all images, on a scale where 255 is 1; empty before setup.

        They are those that were given, or are computed over the training images, or are 0 and 1 where ``normalize`` is
        false.
        """
        self.augmentation = Augmentation(crop_padding, flip, affine, tuple(transforms or ()))
        self.class_weights, self.sampling = class_weights, sampling
        self.ood, self.corruptions = list(ood or []), corruptions
        self.resident = resident

    @abstractmethod
    def load_train(self) -> Images:
        """All training images, in file order."""

    @abstractmethod
    def load_test(self) -> Images:
        """The test images."""

    def split_settings(self, of_holdout: bool) -> tuple[str, ...]:
        return (*super().split_settings(of_holdout), "train_subset") if of_holdout else super().split_settings(False)

    def load_holdout(self) -> Images | None:
        """The source's own validation images; None where the hold-out is to be split off the training images."""
        return None

    def load_predict(self) -> Images:
        """The images that ``predict`` runs on: the test images, unless a subclass has others."""
        return self.load_test()

    def load_ood(self) -> Images:
        """The images that this source supplies when it is another's out-of-distribution set: its test images."""
        return self.load_test()

    @property
    def in_channels(self) -> int:
        return self.channels or self.native_channels

    @property
    def loss_weights(self) -> list[float] | None:
        if self.class_weights is None:
            return None
        return balanced_class_weights(after_setup(self.train, "fit").labels, self.num_classes)

    @property
    def departures(self) -> list[str]:
        settings = {"class weights": self.class_weights, "balanced sampling": self.sampling}
        return [name for name, value in settings.items() if value]

    def setup(self, stage: str | None = None) -> None:
        if stage in ("fit", "validate", None) and self.train is None:
            self._setup_train()
        if stage in ("test", None) and self.test is None:
            self.test = self._converted(self.load_test())
            self.test_sets = {self.title: self.test}
        if stage in ("predict", None) and self.predict is None:
            self.predict = self._converted(self.load_test() if self.predicts_test_examples else self.load_predict())
        if not self.mean:
            given = self._given_mean_and_std if self.normalize else (0.0, 1.0)
            self.mean, self.std = per_channel(*given, self.in_channels)
        if not self.mean:
            # Test images are normalised with the mean and std of the training images, which are computed here.
            if self.train is None:
                self._setup_train()
            self.mean, stds = after_setup(self.train, "fit").mean_and_std()
            self.std = [std or 1.0 for std in stds]  # a constant channel must not be divided by 0
        if stage in ("test", None) and len(self.test_sets) == 1:
            self._add_test_sets(after_setup(self.test, "test"))

    def _add_test_sets(self, test: Images) -> None:
        for other in self.ood:
            if self.name_identifies_examples and other.name_identifies_examples and not other.root_is_given:
                other.root = self.root
            same_name = self.name in (other.name, other.training_examples_of) or other.name == self.training_examples_of
            if same_name and (self.name_identifies_examples or self.root.resolve() == other.root.resolve()):
                raise ValueError(f"ood must be images from elsewhere, got {other.title} for tests on {self.title}.")
            other.prepare_like(self.describe(), labelled=False)
            self._add_ood(other.title, other._converted(other.load_ood()))
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
        images, holdout = self.load_train(), self.load_holdout()
        for which, part in (("training", images), ("hold-out", holdout)):
            if part is not None:
                self._check_classes(which, part.labels)
        if self.train_subset is not None:
            start, stop = self.train_subset
            if stop > len(images):
                raise ValueError(f"train_subset must lie within the {len(images)} training images, got {stop}.")
            images = images[subset_index(images.labels, start, stop, self.seed)]
        self._check_class_settings()
        train, selection, calibration = self.divided(images, holdout)
        self.train, self.selection = self._converted(train), self._converted(selection)
        self.calibration = self._converted(calibration)
        if self.target_names:
            self.measure_targets(train.labels)
        else:
            parts = {"train": self.train, "selection": self.selection, "calibration": self.calibration}
            within = "" if self.train_subset is None else f" within train_subset {list(self.train_subset)}"
            warn_of_small_classes({name: part.labels for name, part in parts.items()}, self.class_names, within)
        check_transforms(self.augmentation.transforms, self.train[:1].pixels[0])

    def _inputs(self, examples: Images) -> Tensor:
        return examples.pixels

    def _converted(self, images: Images) -> Images:
        size = self.image_size or self.native_size
        if size is None:
            raise ValueError(f"image_size must be given for {self.name}, to which its images are resized, such as 32.")
        return images.converted(self.in_channels, size)

    def _check_classes(self, which: str, labels: Tensor) -> None:
        """Refuses a label that is none of the classes: here, because a training step on a device cannot look at it."""
        outside = (labels < 0) | (labels >= self.num_classes)
        if self.class_names and outside.any():
            number = int(outside.nonzero()[0])
            raise ValueError(
                f"labels must be from 0 to {self.num_classes - 1}, the numbers of the classes of {self.title}, got "
                f"{labels[number]} for {which} image {number}; leave out images without a class."
            )

    def _check_class_settings(self) -> None:
        """Refuses settings that need classes where labels are numbers."""
        for name, choice in (("class_weights", self.class_weights), ("sampling", self.sampling)):
            if choice and self.target_names:
                raise ValueError(f"{name} must be null for {self.name}, whose labels are numbers, got {choice}.")

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "image_size": self.image_size or self.native_size,
            "channels": self.in_channels,
            "mean": self.mean,
            "std": self.std,
        }

    def prepare_like(self, description: dict[str, Any], labelled: bool = True) -> None:
        """Takes over image size, channels and normalisation from ``description``, and the units of targets.

        Raises:
            ValueError: when ``labelled`` and the labels mean something else, or the checkpoint was not of images.
        """
        super().prepare_like(description, labelled)
        if "image_size" not in description:
            raise ValueError(
                f"data must be of the checkpoint's kind, like {description['name']}, got the images {self.title}."
            )
        self.image_size, self.channels = description["image_size"], description["channels"]
        self.mean, self.std = description["mean"], description["std"]

    def _loader(self, examples: Any, train: bool = False) -> EpochLoader:
        labels = examples.labels if train and self.sampling == "balanced" else None
        sampler, device = self._sampler_and_device(len(examples), train, labels)
        if not train:
            return BatchLoader(examples, self.eval_batch_size, self.mean, self.std, sampler, device=device)
        if self.resident:
            examples = Images(examples.pixels.to(device), examples.labels.to(device))
        return BatchLoader(examples, self.batch_size, self.mean, self.std, sampler, self.augmentation, device)
