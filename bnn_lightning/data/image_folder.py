"""ImageFolder: a user's own pictures, in one folder per class, or with classes or numbers in a table."""

import hashlib
import os
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from bnn_lightning.data.base import ImageData
from bnn_lightning.data.loader import EpochLoader, Images
from bnn_lightning.data.picture_cache import cached_pixels
from bnn_lightning.data.picture_labels import layout_by_labels
from bnn_lightning.data.picture_layout import Layout, labels_by_folder, layout_of, not_there
from bnn_lightning.data.picture_numbers import NumberLayout
from bnn_lightning.data.picture_pool import pool_of
from bnn_lightning.data.picture_remarks import on_readings, on_walk
from bnn_lightning.data.picture_statement import Found
from bnn_lightning.data.picture_stream import PictureStream, StreamLoader
from bnn_lightning.data.source import DataNotFoundError
from bnn_lightning.data.splits import stratified_split
from bnn_lightning.files import expanded
from bnn_lightning.preprocessing.decoding import Background, Decoder, Fit, Reading, is_grey, open_picture, read_into
from bnn_lightning.preprocessing.pictures import Picture, Walk, walk
from bnn_lightning.preprocessing.scaling import Scaling
from bnn_lightning.wording import counted, listed, printable


class ImageFolder(ImageData):
    """Pictures in ``root/train/CLASS``, ``root/val/CLASS`` and ``root/test/CLASS``, or in ``root/CLASS``.

    Where there is only ``root/CLASS``, a fifth of each class, chosen by ``seed``, is the test set. Where there is
    ``root/val``, it is the hold-out and ``val_split`` is not used. ``predict`` takes every picture below root, whatever
    the folders; root may also be a single file. Links are followed, and hidden files are not looked at. Pictures are
    grey if every training picture is grey, otherwise RGB. Files that cannot be read are left out, with a warning;
    ``found`` says what was there, and what was passed over. Classes are numbered in the natural order of their names
    (9 before 10), or as the checkpoint has them.

    With ``labels``, a table says what a picture's class is, or its numbers; folders below root then mean nothing,
    unless there are train and test. Pictures without a label are left out. Of several tables and folders each has
    the classes of some pictures.

    Args:
        labels: a table with a header: ``file,class`` as many tools export it (docs/acquisition.md), or ``file,NAME``
            with a number for each picture, or several; or a folder with a folder for each class, which holds copies of
            pictures or links to them; or a list of such tables of classes and folders. What is not there from here is
            looked for in root. null: the folders below root are the classes.
        fit: of pictures that are not square: crop takes the middle square, pad adds ``background`` on both sides, and
            stretch changes their shape.
        background: what is seen through transparent pixels, and beside padded pictures. In test and predict, this and
            ``fit`` are the checkpoint's.
        cache: a folder for decoded pixels: later runs map them into memory from files there (uint8; they may be larger
            than the memory) instead of decoding again, until a picture, its name or its date changes; null: no cache.
    """

    name_identifies_examples = False

    def __init__(
        self,
        *args: Any,
        labels: str | list[str] | None = None,
        fit: Fit = "crop",
        background: Background = "white",
        cache: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        for name, value, known in (("fit", fit, Fit), ("background", background, Background)):
            if value not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {value}.")
        self.labels = [labels] if isinstance(labels, str) else labels
        self.fit, self.background = fit, background
        self.cache = None if cache is None else expanded(cache)
        self._predicted: list[Picture] = []
        self._trained_classes: tuple[str, ...] = ()  # of the checkpoint that predicts
        self.leaves_out_labelled = False
        """Whether ``predict`` is of the pictures that ``labels`` has no class or number for."""
        self._takes_all = False  # whether the pictures are used whatever their folders, as in predict
        self._with_frames: set[Path] = set()
        self._said: set[str] = set()

    @property
    def title(self) -> str:
        return self.root.resolve().name or super().title

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self._layout.class_names

    @cached_property
    def target_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self._layout.target_names if isinstance(self._layout, NumberLayout) else ()

    @cached_property
    def native_channels(self) -> int:  # type: ignore[override]
        splits = self._layout.splits
        classes = next((splits[split] for split in ("train", "test", "val") if split in splits), None)
        pictures = self._walk.pictures if classes is None else [each for name in classes for each in classes[name]]
        for picture in pictures:
            try:
                with open_picture(picture.path) as opened:
                    if not is_grey(opened):
                        return 3
            except Exception:
                continue  # load_train and load_test report files that cannot be read
        return 1

    @property
    def found(self) -> Found:  # type: ignore[override]
        """What the walk of the folder has found, and the files of what is loaded that could not be read."""
        layout = None if self._takes_all or isinstance(self._layout, NumberLayout) else self._layout
        class_names = () if self._takes_all else self.class_names
        return Found.of(self._walk, layout, class_names, self.unreadable, len(self._with_frames))

    def load_train(self) -> Images:
        pictures, labels = self._labelled("train")
        if self._layout.splits_test_by_seed:
            _, train = self._split_by_seed(labels)
            pictures, labels = [pictures[index] for index in train], labels[train]
        return self._of_classes("train", pictures, labels)[0]

    def load_holdout(self) -> Images | None:
        if "val" not in self._layout.splits:
            return None
        return self._of_classes("val", *self._labelled("val"))[0]

    def load_test(self) -> Images:
        by_seed = self._layout.splits_test_by_seed
        pictures, labels = self._labelled("train" if by_seed else "test")
        if by_seed:
            test, _ = self._split_by_seed(labels)
            pictures, labels = [pictures[index] for index in test], labels[test]
        images, kept = self._of_classes("test", pictures, labels)
        if self.predicts_test_examples:
            self._predicted = kept
        return images

    def setup(self, stage: str | None = None) -> None:
        if stage == "predict" and self.predict is None and self._can_stream:
            pictures = self._pictures_to_predict()
            self.predict = PictureStream(pictures, self._known_labels(pictures), self._decoder(), self._note_reading)
        super().setup(stage)

    @property
    def _can_stream(self) -> bool:
        return self.streams_predict and not self.predicts_test_examples and self.cache is None

    def load_predict(self) -> Images:
        pictures = self._pictures_to_predict()
        images, self._predicted = self._read(pictures, self._known_labels(pictures))
        return images

    def _pictures_to_predict(self) -> list[Picture]:
        """All of them, whatever their folders."""
        self._takes_all = self.train is None and self.test is None
        pictures, not_files = self._walk.pictures, self._walk.not_files
        if self.leaves_out_labelled:
            labelled: Collection[str] = () if self.labels is None else self._layout.by_file
            pictures, remarks = pool_of(self._walk, self.labels or (), labelled)
            self._say(remarks)
        if not pictures and not not_files:
            where = (
                f"below {printable(self.root)}"
                if os.path.isdir(self.root)
                else f"in {printable(self.root)}, which is not there"
            )
            raise DataNotFoundError(f"ImageFolder found no pictures: looked for .png, .jpg and others {where}.")
        self.unreadable |= not_files
        self._say(on_walk(self._walk))
        return pictures

    def _known_labels(self, pictures: Sequence[Picture]) -> Tensor:
        """The labels of pictures whatever their splits: -1 or nan where none is known that the checkpoint predicts."""
        by_table = None if self.labels is None else self._layout
        if self.target_names:
            rows: Mapping[str, tuple[float, ...]] = {}
            if isinstance(by_table, NumberLayout) and by_table.target_names == self.target_names:
                rows = by_table.by_file
            unknown = (torch.nan,) * self.num_targets
            return torch.tensor([rows.get(picture.real, unknown) for picture in pictures]).view(-1, self.num_targets)
        if by_table is None:
            return torch.tensor(labels_by_folder(pictures, self._trained_classes), dtype=torch.int64)
        names = by_table.by_file if isinstance(by_table, Layout) else {}
        numbers = {name: number for number, name in enumerate(self._trained_classes)}
        known = [numbers.get(names.get(picture.real, ""), -1) for picture in pictures]
        return torch.tensor(known, dtype=torch.int64)

    def _note_reading(self, pictures: Sequence[Picture], reading: Reading, is_all: bool = True) -> None:
        """Takes over what has been found out about files that were read."""
        self.unreadable |= {pictures[index].path: reason for index, reason in reading.unreadable}
        self._with_frames |= {pictures[index].path for index in reading.with_frames}
        if is_all:
            self._say(on_readings(pictures, reading, self.unreadable))

    def load_ood(self) -> Images:
        return self.load_predict()  # all pictures, labelled or not: out-of-distribution scores need no labels

    def predict_names(self, start: int = 0, stop: int | None = None) -> list[str]:
        return [printable(path) for path in self.predict_files(start, stop)]

    def predict_files(self, start: int = 0, stop: int | None = None) -> list[Path]:
        """The file of each picture of ``predict`` that was served, from number ``start`` on and before ``stop``."""
        return [picture.path for picture in self.predict_pictures(start, stop)]

    def predict_pictures(self, start: int = 0, stop: int | None = None) -> Sequence[Picture]:
        """The same with each one's place below the root."""
        streamed = isinstance(self.predict, PictureStream)
        return self.predict.served(start, stop) if streamed else self._predicted[start:stop]

    def knows_labels_of(self, class_names: Sequence[str]) -> bool:
        if self.predicts_test_examples or self.target_names:
            return super().knows_labels_of(class_names)
        # Labels of pictures that are taken whatever their folders are numbers of the checkpoint's classes.
        return bool((self.predict.labels >= 0).any())

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"fit": self.fit, "background": self.background}

    def number_classes_like(self, class_names: Sequence[str]) -> None:
        self._check_root()
        if set(class_names) == set(self.class_names):
            self.class_names = tuple(class_names)

    def prepare_like(self, description: dict[str, Any], labelled: bool = True) -> None:
        self.fit = description.get("fit", self.fit)
        self.background = description.get("background", self.background)
        if not labelled:
            self.target_names = tuple(description.get("target_names", ()))
            self._trained_classes = tuple(description["class_names"])
        elif not self.target_names:
            # A folder of test pictures may lack some classes; labels must be the class numbers of the checkpoint.
            if set(self.class_names) <= set(description["class_names"]):
                self.class_names = tuple(description["class_names"])
            elif self._layout.misplaced:
                raise ValueError(self._layout.misplaced)
        super().prepare_like(description, labelled)

    @property
    def splits_test_by_seed(self) -> bool:  # type: ignore[override]
        return self._layout.splits_test_by_seed

    @cached_property
    def _walk(self) -> Walk:
        return walk(self.root)

    def _check_root(self) -> None:
        if not os.path.exists(self.root):
            raise DataNotFoundError(not_there(self.root))

    @cached_property
    def divided_examples(self) -> str | None:
        self._check_root()
        if self._takes_all or "train" not in self._layout.splits:
            return None
        pictures, labels = self._layout.labelled("train", self.class_names)
        names: Any = labels if self.target_names else [self.class_names[label] for label in labels]  # type: ignore[index]
        files = (os.path.relpath(picture.path, self.root) for picture in pictures)
        # By sizes too: files that were numbered anew have the names of others. Checkpoints of old have names alone.
        lines = sorted(zip(map("{}\0{}".format, files, names), map(_size, pictures), strict=True))
        return _digest(line for line, _ in lines) + _digest(str(size) for _, size in lines)

    @cached_property
    def _layout(self) -> Layout | NumberLayout:
        return layout_of(self._walk) if self.labels is None else layout_by_labels(self._walk, self.labels)

    def _split_by_seed(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the test pictures and of the others."""
        return stratified_split(labels, 0.2, self.seed)

    def _labelled(self, split: str) -> tuple[list[Picture], Tensor]:
        """The pictures of train, val or test, and their labels ``(pictures, ...)``."""
        self._say(self._layout.remarks)  # first, because a remark may be the reason why there are too few
        pictures, labels = self._layout.labelled(split, self.class_names)
        return pictures, torch.tensor(labels)

    def _of_classes(self, split: str, pictures: list[Picture], labels: Tensor) -> tuple[Images, list[Picture]]:
        """Labelled images, and which pictures they are; raises where too few classes can be read."""
        images, kept = self._read(pictures, labels)
        if not pictures:
            raise DataNotFoundError(
                f"root must hold more pictures for a {split} set, a fifth of them, got "
                f"{counted(len(self._walk.pictures), 'picture')} in {printable(self.root)}."
            )
        if not kept:
            raise DataNotFoundError(f"none of the {len(pictures):,} {split} pictures below {self.root} can be read.")
        if self.target_names:
            return images, kept
        readable = set(images.labels.tolist())
        lost = [self.class_names[label] for label in sorted(set(labels.tolist()) - readable)]
        if split == "train" and len(readable) < 2:
            raise ValueError(
                "root must hold two or more classes to train on, got pictures that can be read of "
                f"{self.class_names[min(readable)]} alone; nothing of {listed(lost)} can be read in "
                f"{printable(self.root)}."
            )
        if lost:
            self._say([f"no {split} picture of {listed(lost)} in {printable(self.root)} can be read."])
        return images, kept

    def _read(self, pictures: list[Picture], labels: Tensor) -> tuple[Images, list[Picture]]:
        """The images that can be read, and which pictures they are."""
        decoder = self._decoder()
        if self.cache is None:
            rows = np.empty((len(pictures), *decoder.shape), np.uint8)
            reading = read_into(rows, (picture.path for picture in pictures), decoder)
            images = Images(torch.from_numpy(rows[: len(reading.kept)]), labels[reading.kept])
        else:
            pixels, reading = cached_pixels(self.cache, pictures, decoder)
            images = Images(pixels, labels[reading.kept], torch.arange(len(reading.kept)))
        self._note_reading(pictures, reading)
        return images, [pictures[index] for index in reading.kept]

    def _decoder(self) -> Decoder:
        if self.image_size is None:
            raise ValueError("image_size must be given for ImageFolder, to which pictures are resized, such as 32.")
        return Decoder(self.in_channels, self.image_size, self.fit, self.background)

    def _loader(self, examples: Any, train: bool = False) -> EpochLoader:
        if not isinstance(examples, PictureStream):
            return super()._loader(examples, train)
        sampler, device = self._sampler_and_device(len(examples), train)
        return StreamLoader(examples, self.eval_batch_size, Scaling(self.mean, self.std, device), sampler, device)

    def _say(self, remarks: Sequence[str]) -> None:
        """Warns about each once."""
        for remark in remarks:
            if remark not in self._said:
                self._said.add(remark)
                warnings.warn(remark, stacklevel=2)


def _size(picture: Picture) -> int:
    """Of its file in bytes; -1 where that is gone since the walk."""
    try:
        return os.path.getsize(picture.path)
    except OSError:
        return -1


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]
