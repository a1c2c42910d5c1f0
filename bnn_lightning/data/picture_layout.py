"""Splits and classes of a picture folder, read from the names of its folders."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bnn_lightning.data import picture_remarks
from bnn_lightning.data.source import DataNotFoundError
from bnn_lightning.preprocessing.pictures import SPLIT_OF, Picture, Walk, by_folder, folder_above
from bnn_lightning.wording import listed, printable

_ORDER = {name: number for number, name in enumerate(SPLIT_OF)}
Classes = Mapping[str, Sequence[Picture]]


@dataclass(frozen=True)
class Layout:
    """Which pictures are of which split and class.

    Args:
        root: the picture folder.
        splits: of ``train``, ``val`` and ``test`` those that there are, with the pictures of each class.
        folders: where each of them lies.
        remarks: a sentence about each oddity that the user may not have meant.
        empty: folders beside those of the classes, or of the splits, without a picture at any depth.
        misplaced: why the pictures have no classes, or only one, and the cure; "" where the folders are as they should.
        repeated: the splits whose pictures are all training pictures too, by links.
    """

    root: Path
    splits: Mapping[str, Classes]
    folders: Mapping[str, Path]
    remarks: tuple[str, ...] = ()
    empty: tuple[Path, ...] = ()
    misplaced: str = ""
    repeated: frozenset[str] = frozenset()

    @property
    def splits_test_by_seed(self) -> bool:
        """Whether the test set is split off, because the user has made no folder for it or for training."""
        return "test" not in self.splits and self.folders.get("train", self.root) == self.root

    @cached_property
    def by_file(self) -> dict[str, str]:
        """The class of each file that has one, by its ``Picture.real``."""
        return {
            picture.real: name
            for classes in self.splits.values()
            for name, pictures in classes.items()
            for picture in pictures
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the training pictures or, where there are none, of another split, in :func:`natural_order`."""
        classes = next((self.splits[split] for split in ("train", "test", "val") if split in self.splits), {})
        return tuple(sorted(classes, key=natural_order))

    def labelled(self, split: str, class_names: Sequence[str]) -> tuple[list[Picture], list[int]]:
        """The pictures of a split, class by class, and the index of each one's class in ``class_names``.

        Raises:
            DataNotFoundError: when there are none.
            ValueError: when training or testing on them would mean nothing.
        """
        classes = self.splits.get(split)
        if not classes and self.splits and not self.misplaced:
            raise DataNotFoundError(
                f"root must have a folder {split} with a folder for each class, got {listed(self.splits)} alone in "
                f"{printable(self.root)}; make it, or name another folder with --data.root."
            )
        if not classes:
            raise DataNotFoundError(
                self.misplaced
                or f"ImageFolder found no {split} pictures: looked for .png, .jpg and others in "
                f"{printable(self.root)}/CLASS, with one folder for each class. Name the folder above them with "
                "--data.root."
            )
        if split == "train" and len(classes) < 2:
            raise ValueError(
                self.misplaced
                or f"root must hold two or more classes to train on, got one, {listed(classes)}, in "
                f"{printable(self.folders[split])}; each class needs a folder of its own."
            )
        if split in self.repeated:
            raise ValueError(
                f"root must hold {split} pictures that are not training pictures, got links to the same files in "
                f"{printable(self.folders[split])}."
            )
        pictures: list[Picture] = []
        labels: list[int] = []
        for label, name in enumerate(class_names):
            of_class = classes.get(name, ())
            pictures += of_class
            labels += [label] * len(of_class)
        if not pictures:
            raise ValueError(
                f"root must hold the same classes for {split} as for training, got {listed(classes)} in "
                f"{printable(self.folders[split])}, and {listed(class_names)} for training; rename the folders."
            )
        return pictures, labels


def layout_of(walk: Walk) -> Layout:
    """Finds the splits and classes of a picture folder.

    A folder that is called like a split is one if class folders are in it. Other folders are the training classes,
    unless there is a folder of the training split.

    Raises:
        ValueError: when two folders are the same split.
    """
    classes, loose = by_folder(walk.pictures, 0)
    splits, folders, bare = _splits_among(classes, walk.root)
    remarks = []
    if not splits and classes and [folder.name.lower() for folder in bare] == ["train"]:
        (folder, pictures), bare = next(iter(bare.items())), {}
        classes[folder.name] = pictures  # of trains, beside buses
        remarks.append(f"{printable(folder)} is taken for a class, because there are no class folders in it.")
    if classes:
        remarks += picture_remarks.on_other_folders(walk.root, classes, folders)
        if "train" not in splits:
            splits, folders = {"train": classes} | splits, {"train": walk.root} | folders
    without_class = {walk.root: loose} | bare
    misplaced = ""
    if not splits:
        misplaced = _without_classes(without_class, walk.root)
    elif len(splits.get("train", ())) == 1:
        misplaced = _too_shallow(splits["train"], folders["train"], walk.root)
    if splits:
        remarks += picture_remarks.on_pictures_without_class(without_class)
    once = {split: {name: _once(pictures) for name, pictures in splits[split].items()} for split in splits}
    empty = tuple(_without_pictures(walk, folders.values()))
    remarks += picture_remarks.on_classes(once, folders) + picture_remarks.on_depth(once, folders, walk.root)
    remarks += picture_remarks.on_empty_folders(walk, empty) + picture_remarks.on_walk(walk)
    shared, repeated = picture_remarks.on_shared_files(once) if walk.has_links else ([], frozenset())
    return Layout(walk.root, once, folders, (*remarks, *shared), empty, misplaced, repeated)


def labels_by_folder(pictures: Iterable[Picture], class_names: Sequence[str]) -> list[int]:
    """For each picture the index of the class whose name its folder has; -1 where it has none.

    It is the folder directly below the root, or below one of the root that is called like a split.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    labels = []
    for picture in pictures:
        folders = picture.below[:-1]
        if len(folders) > 1 and folders[0].lower() in SPLIT_OF:
            folders = folders[1:]
        labels.append(numbers.get(printable(folders[0]), -1) if folders else -1)
    return labels


def _splits_among(
    classes: dict[str, list[Picture]], root: Path
) -> tuple[dict[str, dict[str, list[Picture]]], dict[str, Path], dict[Path, list[Picture]]]:
    """Takes the folders that are called like splits out of ``classes``.

    Returns:
        The classes of each split, its folder, and the pictures that lie in such a folder and in no class.
    """
    splits: dict[str, dict[str, list[Picture]]] = {}
    folders: dict[str, Path] = {}
    bare: dict[Path, list[Picture]] = {}
    for name in sorted((name for name in classes if name.lower() in SPLIT_OF), key=lambda name: _ORDER[name.lower()]):
        split, (inner, loose) = SPLIT_OF[name.lower()], by_folder(classes.pop(name), 1)
        if loose:
            bare[root / name] = loose
        if inner and split in splits:
            raise ValueError(
                f"root must have one folder of {split} pictures, got {folders[split].name} and {name} in "
                f"{printable(root)}; merge them, or rename one."
            )
        if inner:
            splits[split], folders[split] = inner, root / name
    return splits, folders, bare


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key that has numbers in a name by their size: class_2 before class_10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _once(pictures: list[Picture]) -> list[Picture]:
    """Each file once, however many links lead to it."""
    once: dict[str, Picture] = {}
    for picture in pictures:
        once.setdefault(picture.real, picture)
    return list(once.values())


def _without_pictures(walk: Walk, folders: Iterable[Path]) -> Iterator[Path]:
    parents = {folder.relative_to(walk.root).parts for folder in folders} | {()}
    with_pictures = {picture.below[:depth] for picture in walk.pictures for depth in (1, 2)}
    for below in sorted(walk.folders):
        if below and below[:-1] in parents and below not in with_pictures:
            yield walk.root.joinpath(*below)


def not_there(root: Path) -> str:
    """The sentence about a root that does not exist."""
    return f"root must be a folder of pictures, got {printable(root)}, which is not there."


def _without_classes(without_class: Mapping[Path, Sequence[Picture]], root: Path) -> str:
    """What to do with a root without class folders; "" where it has no pictures at all."""
    if not os.path.exists(root):
        return not_there(root)
    place = next((folder for folder, pictures in without_class.items() if pictures), None)
    if place is None:
        return ""
    if os.path.isfile(root):
        return f"root must be a folder with a folder for each class, got the file {printable(root)}."
    cure = f"move them into {printable(place)}/CLASS"
    if place == root:
        cure = f"if this is one class of several, name the folder above: --data.root {printable(folder_above(root))}"
    return f"root must hold a folder for each class, got pictures directly in {printable(place)}; {cure}."


def _too_shallow(classes: Classes, folder: Path, root: Path) -> str:
    """Where the classes lie if the only folder holds folders itself; "" where it does not."""
    (name, pictures), place = next(iter(classes.items())), folder
    depth = 1 + (folder != root)
    while True:
        place /= name
        inner, loose = by_folder(pictures, depth)
        if loose or not inner:
            return ""
        name = next(iter(inner))
        if len(inner) > 1 or name.lower() in SPLIT_OF:
            break
        depth, pictures = depth + 1, inner[name]
    cure = f"use --data.root {printable(place)}" if folder == root else f"move these up into {printable(folder)}"
    return (
        f"root must hold two or more classes to train on, got one folder in {printable(folder)}, and {listed(inner)} "
        f"in {printable(place)}; {cure}."
    )
