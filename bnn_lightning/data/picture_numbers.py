"""Numbers for the pictures of a folder, from a table with a row for each file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from bnn_lightning.data.picture_remarks import on_links
from bnn_lightning.data.picture_rows import Matched, file_column, on_pictures_without
from bnn_lightning.data.source import DataNotFoundError
from bnn_lightning.data.table_file import read_table
from bnn_lightning.files import expanded
from bnn_lightning.preprocessing.columns import numbers_of
from bnn_lightning.preprocessing.pictures import SPLIT_OF, Picture, Walk
from bnn_lightning.preprocessing.rows import texts_of
from bnn_lightning.wording import listed, printable


@dataclass(frozen=True)
class NumberLayout:
    """Which pictures are of which split, and their numbers; the counterpart of a Layout of classes.

    Args:
        root: the picture folder.
        target_names: of the numbers.
        by_file: the numbers of each file that has some, by its ``Picture.real``.
        splits: of ``train``, ``val`` and ``test`` those that there are, with their pictures as one nameless class.
        remarks: a sentence about each oddity that the user may not have meant.
    """

    root: Path
    target_names: tuple[str, ...]
    by_file: Mapping[str, tuple[float, ...]]
    splits: Mapping[str, Mapping[str, Sequence[Picture]]]
    remarks: tuple[str, ...]

    class_names = ()
    misplaced = ""

    @classmethod
    def read(cls, walk: Walk, labels: str) -> Self:
        """The numbers in ``labels``: a table with a column of files, found as those of classes are, below a header.

        All other columns of numbers are targets.

        A picture without a row belongs to no split. Where the root has folders of training and of test pictures, they
        are the splits; else a fifth, by the seed, is the test set.

        Raises:
            DataNotFoundError: when there is no such table.
            ValueError: when it is none of numbers, or names none of the pictures.
        """
        path = table_of(walk, labels)
        raw = read_table(path, setting="labels")
        names = list(raw.columns)
        if len(names) < 2 or names[0] == "0":
            raise ValueError(f"labels must be a table with the header file,NUMBER, got {path}, which has none.")
        file = names[file_column(names, raw.index)]
        if raw.columns[file].dtype == np.float64:  # digits, whose leading zeros count
            raw = read_table(path, [file], "labels")
        others = [name for name in names if name != file and name not in raw.index]
        if not others:
            raise ValueError(
                f"labels must be a table with the header file,NUMBER, got the column {file} alone in {path}."
            )
        targets = [name for name in others if raw.columns[name].dtype == np.float64] or others[:1]
        columns = [numbers_of(raw, name, "labels") for name in targets]
        for name, column in zip(targets, columns, strict=True):
            if np.isnan(column).any():
                raise ValueError(
                    f"labels must have a number for each file, got no {name} in {raw.where(np.isnan(column))}."
                )
        files = [str(each) for each in texts_of(raw.columns[file])]
        if len(set(files)) < len(files):
            twice = next(each for each, count in Counter(files).items() if count > 1)
            raise ValueError(f"labels must have a row for each file, got {twice} twice in {path}.")
        matched = Matched.of(walk, path, files)
        numbers = dict(zip(files, zip(*(column.tolist() for column in columns), strict=True), strict=True))
        rows: dict[str, tuple[float, ...]] = {}
        for each, picture in matched.found.items():
            if rows.setdefault(picture.real, numbers[each]) != numbers[each]:
                raise ValueError(
                    f"labels must have a row for each file, got two with other numbers for {'/'.join(picture.below)} "
                    f"in {path}, of which one is called {each}."
                )
        if not rows:
            pictures = listed("/".join(picture.below) for picture in walk.pictures)
            raise ValueError(
                f"labels must name pictures below {printable(walk.root)}, which has {pictures or 'none'}, got "
                f"{listed(files)} in {path}."
            )
        remarks = on_pictures_without("row", str(path), walk, rows) + matched.remarks(path)
        if texts := [name for name in others if name not in targets]:
            remarks.append(f"columns of {path} that hold no numbers and are left out: {listed(texts)}.")
        named = set(matched.found.values())
        numbered = [picture for picture in walk.pictures if picture in named]
        nameless = {split: {"": of_split} for split, of_split in splits_of(numbered).items()}
        return cls(walk.root, tuple(targets), rows, nameless, (*remarks, *on_links(numbered)))

    @property
    def splits_test_by_seed(self) -> bool:
        """Whether the test set is split off, because the folders do not say what it is."""
        return "test" not in self.splits

    def labelled(self, split: str, _: Sequence[str]) -> tuple[list[Picture], list[tuple[float, ...]]]:
        """The pictures of a split and their numbers.

        Raises:
            DataNotFoundError: when there are none.
        """
        pictures = list(self.splits.get(split, {}).get("", ()))
        if not pictures:
            raise DataNotFoundError(f"ImageFolder found no {split} pictures with numbers below {printable(self.root)}.")
        return pictures, [self.by_file[picture.real] for picture in pictures]


def table_of(walk: Walk, labels: str) -> Path:
    """A table of labels, or a folder of them: from here or, where there is none, from the root of the pictures."""
    path = expanded(labels)
    return path if path.is_absolute() or path.exists() else walk.root / path


def splits_of(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    """Pictures by the split that their folder below the root is called, where there are training and test.

    What lies elsewhere is of training: a picture that was bought for it must not undo the test set. A file that links
    put into several places is taken once: a link must not put a test picture into training either.

    Raises:
        ValueError: when every training picture is one to test or validate on.
    """
    named = [SPLIT_OF.get(picture.below[0].lower()) if len(picture.below) > 1 else None for picture in pictures]
    is_divided = {"train", "test"} <= set(named)
    part_of = {picture: (is_divided and split) or "train" for picture, split in zip(pictures, named, strict=True)}
    once: dict[str, Picture] = {}
    for picture in sorted(pictures, key=lambda picture: ("test", "val", "train").index(part_of[picture])):
        once.setdefault(picture.real, picture)
    splits: dict[str, list[Picture]] = {}
    for picture in pictures:
        if once[picture.real] == picture:
            splits.setdefault(part_of[picture], []).append(picture)
    if "train" not in splits:
        raise ValueError(
            "labels must name training pictures that are not those to test or validate on, got links to the same "
            f"files, such as {printable(pictures[0].real)}."
        )
    return splits
