"""Classes for the pictures of a folder, from a table of any labelling tool, or from copies sorted into folders."""

import filecmp
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from bnn_lightning.data.picture_layout import Layout
from bnn_lightning.data.picture_numbers import NumberLayout, splits_of, table_of
from bnn_lightning.data.picture_rows import Matched, column_called, file_column
from bnn_lightning.data.table_file import Cells, read_cells
from bnn_lightning.preprocessing.pictures import PICTURE_ENDINGS, Picture, Walk, by_folder, walk
from bnn_lightning.preprocessing.rows import number_in
from bnn_lightning.wording import listed, printable

_NO_CLASS = ("", "?", "nan")  # "none" and "null" may be classes, as they may be folders
_CLASS_COLUMNS = ("class", "label", "choice", "category", "class_name", "classname", "label_name")


def layout_by_table(walk: Walk, labels: str) -> Layout | NumberLayout:
    """The classes, or the numbers, that the table or the folder ``labels`` has for the pictures of a folder.

    A folder has a folder for each class, with copies of pictures or links to them, such as ``bnn acquire --to`` makes.
    The labels are classes where a column is called class, label, choice or category, unless it has fractions in it;
    where a single column beside the files' has texts; and where several columns have a 0 or 1 in each cell, a column
    for each class. Any other table is one of numbers.

    Raises:
        DataNotFoundError: when there is no such table.
        ValueError: when it is none of labels, contradicts itself, or names none of the pictures.
    """
    path = table_of(walk, labels)
    if path.is_dir():
        return _layout(walk, path, *_sorted_by_hand(walk, path))
    if path.suffix.lower() in (".parquet", ".pq"):
        return NumberLayout.read(walk, labels)
    cells = read_cells(path, "labels")
    first = PurePosixPath(cells.names[0]).suffix.lower()
    if not cells.has_header or first in PICTURE_ENDINGS:
        raise ValueError(
            f"labels must be a table with the header file,class or file,NUMBER, got {path}, which has none."
        )
    classes = _classes(cells, path)
    if classes is None:
        return NumberLayout.read(walk, labels)
    return _layout(walk, path, *classes)


def _sorted_by_hand(pool: Walk, folder: Path) -> tuple[list[str], list[str]]:
    """The place below the pool, and the class, of each picture that lies in a class folder of ``folder``.

    A copy is told by its bytes, whatever it is called; pictures of the pool that are alike all have its class.
    """
    if folder.resolve().is_relative_to(pool.root.resolve()):
        raise ValueError(f"labels must lie outside of root, whose pictures would be there twice, got {folder}.")
    classes, loose = by_folder(walk(folder).pictures, 0)
    if loose or not classes:
        got = printable(loose[0].path.name) if loose else "none"
        raise ValueError(f"labels must be a folder with a folder of pictures for each class, got {got} in {folder}.")
    of_size: dict[int, list[Picture]] = defaultdict(list)
    for picture in pool.pictures:
        of_size[picture.path.stat().st_size].append(picture)
    files, names = [], []
    for name, pictures in classes.items():
        for copy in pictures:
            candidates = of_size[copy.path.stat().st_size]
            alike = [picture for picture in candidates if filecmp.cmp(picture.path, copy.path, shallow=False)]
            places = ["/".join(picture.below) for picture in alike] or [f"{folder}/{'/'.join(copy.below)}"]
            files += places
            names += [name] * len(places)
    return files, names


def _classes(cells: Cells, path: Path) -> tuple[list[str], list[str]] | None:
    """The file and the class of each row, "" where it has none yet; None where the table is one of numbers."""
    files = file_column(cells.names, cells.index)
    column = column_called(cells.names, _CLASS_COLUMNS)
    others = [place for place, name in enumerate(cells.names) if place != files and name not in cells.index]
    if column is None and len(others) == 1:
        column = others[0]
        if any(_finite_in(row[column]) is not None for row in cells.rows):
            return None
    if column is not None and column != files:
        texts = [row[column] for row in cells.rows]
        if any(number is not None and number % 1 != 0 for number in map(_finite_in, texts)):
            return None
        if several := next((text for text in texts if text.startswith(("{", "["))), None):
            raise ValueError(f"labels must have one class for each file, got {several} in {path}.")
        names = ["" if text.lower() in _NO_CLASS else text for text in texts]
    elif len(others) > 1 and all(number_in(row[place]) in (0.0, 1.0) for row in cells.rows for place in others):
        names = []
        for number, row in zip(cells.lines, cells.rows, strict=True):
            marked = [cells.names[place] for place in others if number_in(row[place]) == 1]
            if len(marked) > 1:
                raise ValueError(
                    f"labels must have one class for each file, got {' and '.join(marked)} in row {number} of {path}."
                )
            names.append(marked[0] if marked else "")
    else:
        return None
    return [row[files] for row in cells.rows], names


def _finite_in(text: str) -> float | None:
    number = number_in(text)
    return number if number is not None and math.isfinite(number) else None


def _layout(walk: Walk, path: Path, files: Sequence[str], names: Sequence[str]) -> Layout:
    matched = Matched.of(walk, path, files)
    classes: dict[Picture, str] = {}
    for file, name in zip(files, names, strict=True):
        picture = matched.found.get(file)
        if picture is None or not name:
            continue
        if classes.setdefault(picture, name) != name:
            raise ValueError(
                f"labels must have one class for each file, got {classes[picture]} and {name} for "
                f"{'/'.join(picture.below)} in {path}."
            )
    if not classes:
        raise ValueError(
            f"labels must name pictures below {printable(walk.root)} with their class, got {listed(files)} in {path}, "
            f"and {listed('/'.join(picture.below) for picture in walk.pictures) or 'no pictures'} there."
        )
    remarks = matched.remarks(walk, path, classes, "class")
    splits: dict[str, dict[str, list[Picture]]] = {}
    for split, pictures in splits_of(list(classes)).items():
        for picture in pictures:
            splits.setdefault(split, {}).setdefault(classes[picture], []).append(picture)
    only = next(iter(splits["train"])) if len(splits["train"]) == 1 else ""
    misplaced = f"labels must have two classes or more to train on, got {only} alone in {path}." if only else ""
    folders = {split: walk.root if len(splits) == 1 else walk.root / split for split in splits}
    return Layout(walk.root, splits, folders, tuple(remarks), misplaced=misplaced)
