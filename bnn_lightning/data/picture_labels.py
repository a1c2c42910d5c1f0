"""Classes for the pictures of a folder, from tables of any labelling tool, and from copies sorted into folders."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bnn_lightning.data.picture_layout import Layout
from bnn_lightning.data.picture_numbers import NumberLayout, splits_of, table_of
from bnn_lightning.data.picture_remarks import on_links
from bnn_lightning.data.picture_rows import Matched, column_called, file_column, on_pictures_without
from bnn_lightning.data.table_file import Cells, read_cells
from bnn_lightning.preprocessing.pictures import PICTURE_ENDINGS, Picture, Walk, by_folder, composed, walk
from bnn_lightning.preprocessing.rows import number_in
from bnn_lightning.wording import listed, printable

_NO_CLASS = ("", "?", "nan")  # "none" and "null" may be classes, as they may be folders
_OF_ROBOFLOW = "_classes.csv"  # a column for each class, which may be called anything, or be the only one
_CLASS_COLUMNS = ("class", "label", "choice", "category", "class_name", "classname", "label_name")


@dataclass(frozen=True)
class _Labels:
    """What one table or folder says.

    Args:
        path: of the table or the folder.
        files: what it names, found or not.
        classes: pictures that it names, each with its class, some of them several times.
        remarks: a sentence about each oddity.
    """

    path: Path
    files: Sequence[str]
    classes: Sequence[tuple[Picture, str]]
    remarks: Sequence[str]


def layout_by_labels(walk: Walk, labels: Sequence[str]) -> Layout | NumberLayout:
    """The classes that tables and folders have for the pictures of a folder, or the numbers that a table has.

    A folder has a folder for each class, with copies of pictures or links to them, such as ``bnn acquire --to`` makes.
    The labels are classes where a column is called class, label, choice or category, unless it has fractions in it;
    where a single column beside the files' has texts; and where several columns have a 0 or 1 in each cell, a column
    for each class. Any other table is one of numbers, and must be the only one.

    Raises:
        DataNotFoundError: when there is no such table.
        ValueError: when one is none of labels, they contradict themselves or each other, or name none of the pictures.
    """
    if not labels:
        raise ValueError("labels must be a table or a folder, or several, got an empty list; null takes none.")
    found = []
    for path in (table_of(walk, each) for each in labels):
        of_path = _sorted_by_hand(walk, path) if path.is_dir() else _in_table(walk, path)
        if of_path is not None:
            found.append(of_path)
        elif len(labels) == 1:
            return NumberLayout.read(walk, labels[0])
        else:
            raise ValueError(
                f"labels must be classes where there are several tables or folders, got numbers in {path}; if they are "
                "classes, call their column class."
            )
    return _layout(walk, found)


def _sorted_by_hand(pool: Walk, folder: Path) -> _Labels:
    """The classes of the pictures whose copies lie in class folders of ``folder``.

    A copy is told by its bytes, whatever it is called; pictures of the pool that are alike all have its class.
    """
    if folder.resolve().is_relative_to(pool.root.resolve()):
        raise ValueError(f"labels must lie outside of root, whose pictures would be there twice, got {folder}.")
    copies = walk(folder)
    classes, loose = by_folder(copies.pictures, 0)
    if loose or not classes:
        got = printable(loose[0].path.name) if loose else "none"
        raise ValueError(f"labels must be a folder with a folder of pictures for each class, got {got} in {folder}.")
    sizes = {copy.path.stat().st_size for copy in copies.pictures}
    of_content: dict[bytes, list[Picture]] = defaultdict(list)
    for picture in pool.pictures:
        if picture.path.stat().st_size in sizes:  # pictures of another size need not be read
            of_content[_digest(picture.path)].append(picture)
    found, lost = [], [printable(link) for link in copies.not_files]
    for name, pictures in classes.items():
        for copy in pictures:
            alike = of_content.get(_digest(copy.path), [])
            found += [(picture, name) for picture in alike]
            lost += [] if alike else [printable(copy.path)]
    remarks = []
    if lost:
        remarks.append(
            f"pictures of {folder} that are copies of none below {printable(pool.root)}, byte for byte, and are left "
            f"out: {len(lost):,}, such as {lost[0]}."
        )
    return _Labels(folder, [printable(copy.path) for copy in copies.pictures], found, remarks)


def _digest(path: Path) -> bytes:
    """That of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _in_table(walk: Walk, path: Path) -> _Labels | None:
    """The classes in a table; None where it is one of numbers."""
    cells = read_cells(path, "labels")
    first = PurePosixPath(cells.names[0]).suffix.lower()
    if not cells.has_header or first in PICTURE_ENDINGS:
        raise ValueError(
            f"labels must be a table with the header file,class or file,NUMBER, got {path}, which has none."
        )
    of_rows = _classes(cells, path)
    if of_rows is None:
        return None
    rows = [row for row in zip(*of_rows, strict=True) if any(row)]  # spreadsheets leave empty ones at the end
    files = [file for file, _ in rows]
    matched = Matched.of(walk, path, files)
    if matched.found and not any(name for _, name in rows):
        raise ValueError(f"labels must have the class of some pictures, got a table without any in {path}.")
    classes = [(matched.found[file], composed(name)) for file, name in rows if name and file in matched.found]
    return _Labels(path, files, classes, matched.remarks(path))


def _classes(cells: Cells, path: Path) -> tuple[list[str], list[str]] | None:
    """The file and the class of each row, "" where it has none yet; None where the table is one of numbers."""
    files = file_column(cells.names, cells.index)
    others = [place for place, name in enumerate(cells.names) if place != files and name not in cells.index]
    column = column_called(cells.names, _CLASS_COLUMNS)
    marks = list(zip(*(map(number_in, cells.columns[place]) for place in others), strict=True))
    is_one_hot = bool(others) and all(mark in (0.0, 1.0) for row in marks for mark in row)
    if path.name != _OF_ROBOFLOW:
        # Beside a column of classes 0 and 1 there may be one of folds.
        is_one_hot &= len(others) > 1 and (column is None or all(row.count(1.0) == 1 for row in marks))
    if is_one_hot:
        column = None
    elif column is None and len(others) == 1:
        column = others[0]
        if any(_finite_in(text) is not None for text in cells.columns[column]):
            return None
    if column is not None and column != files:
        texts = list(cells.columns[column])
        if any(number is not None and number % 1 != 0 for number in map(_finite_in, texts)):
            return None
        if several := next((text for text in texts if text.startswith(("{", "["))), None):
            raise ValueError(f"labels must have one class for each file, got {several} in {path}.")
        names = ["" if text.lower() in _NO_CLASS else text for text in texts]
    elif is_one_hot:
        names = []
        for number, row in zip(cells.lines, marks, strict=True):
            marked = [cells.names[place] for place, mark in zip(others, row, strict=True) if mark == 1]
            if len(marked) > 1:
                raise ValueError(
                    f"labels must have one class for each file, got {' and '.join(marked)} in row {number} of {path}."
                )
            names.append(marked[0] if marked else "")
    else:
        return None
    return list(cells.columns[files]), names


def _finite_in(text: str) -> float | None:
    number = number_in(text.replace(",", "."))  # whose decimal comma is refused where numbers are read
    return number if number is not None and math.isfinite(number) else None


def _layout(walk: Walk, labels: Sequence[_Labels]) -> Layout:
    classes: dict[
        str, tuple[str, Path, Picture]
    ] = {}  # by Picture.real: a file has one class, wherever links lead to it
    for of_path in labels:
        for picture, name in of_path.classes:
            other, path, first = classes.setdefault(picture.real, (name, of_path.path, picture))
            if other != name:
                got = other if path == of_path.path else f"{other} in {path}"
                is_link = "" if picture == first else f", which is {'/'.join(first.below)}"
                raise ValueError(
                    f"labels must have one class for each file, got {got} and {name} in {of_path.path} for "
                    f"{'/'.join(picture.below)}{is_link}."
                )
    named = list(dict.fromkeys(picture for of_path in labels for picture, _ in of_path.classes))
    where = listed((str(of_path.path) for of_path in labels), between=" and ")
    if not classes:
        raise ValueError(
            f"labels must name pictures below {printable(walk.root)} with their class, got "
            f"{listed(file for of_path in labels for file in of_path.files)} in {where}, and "
            f"{listed('/'.join(picture.below) for picture in walk.pictures) or 'no pictures'} there."
        )
    remarks = on_pictures_without("class", where, walk, classes)
    remarks += [remark for of_path in labels for remark in of_path.remarks]
    remarks += on_links(named)
    splits: dict[str, dict[str, list[Picture]]] = {}
    for split, pictures in splits_of(named).items():
        for picture in pictures:
            splits.setdefault(split, {}).setdefault(classes[picture.real][0], []).append(picture)
    only = next(iter(splits["train"])) if len(splits["train"]) == 1 else ""
    misplaced = f"labels must have two classes or more to train on, got {only} alone in {where}." if only else ""
    folders = {split: walk.root if len(splits) == 1 else walk.root / split for split in splits}
    return Layout(walk.root, splits, folders, tuple(remarks), misplaced=misplaced)
