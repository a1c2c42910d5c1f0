"""Classes for the pictures of a folder, from a table of any labelling tool, or from copies sorted into folders."""

import filecmp
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from bnn_lightning.data.picture_layout import Layout
from bnn_lightning.data.picture_numbers import NumberLayout, splits_of, table_of
from bnn_lightning.data.table_file import MISSING, Cells, is_number, read_cells
from bnn_lightning.preprocessing.pictures import PICTURE_ENDINGS, Picture, Walk, by_folder, walk
from bnn_lightning.wording import listed, printable

_FILE_COLUMNS = ("file", "filename", "file_name", "image", "image_path", "path", "img", "picture", "name")
_CLASS_COLUMNS = ("class", "label", "choice", "category", "class_name", "classname", "label_name")
# Label Studio puts eight digits of a uuid before the name of a file that was uploaded.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")


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


def _column(names: Sequence[str], known: Sequence[str]) -> int | None:
    lower = [name.lower().replace(" ", "_") for name in names]
    return next((lower.index(name) for name in known if name in lower), None)


def _classes(cells: Cells, path: Path) -> tuple[list[str], list[str]] | None:
    """The file and the class of each row, "" where it has none yet; None where the table is one of numbers."""
    files = _column(cells.names, _FILE_COLUMNS) or 0
    column = _column(cells.names, _CLASS_COLUMNS)
    others = [place for place in range(len(cells.names)) if place != files]
    if column is None and len(others) == 1:
        column = others[0]
        if any(is_number(row[column]) for row in cells.rows):
            return None
    if column is not None and column != files:
        texts = [row[column] for row in cells.rows]
        if any(is_number(text) and not float(text).is_integer() for text in texts):
            return None
        if several := next((text for text in texts if text.startswith(("{", "["))), None):
            raise ValueError(f"labels must have one class for each file, got {several} in {path}.")
        names = ["" if text.lower() in MISSING else text for text in texts]
    elif len(others) > 1 and all(row[place] in ("0", "1") for row in cells.rows for place in others):
        names = []
        for number, row in enumerate(cells.rows, start=2):
            marked = [cells.names[place] for place in others if row[place] == "1"]
            if len(marked) > 1:
                raise ValueError(
                    f"labels must have one class for each file, got {' and '.join(marked)} in row {number} of {path}."
                )
            names.append(marked[0] if marked else "")
    else:
        return None
    return [row[files] for row in cells.rows], names


def _layout(walk: Walk, path: Path, files: Sequence[str], names: Sequence[str]) -> Layout:
    found, unknown, by_name = _matched(walk, path, files)
    classes: dict[Picture, str] = {}
    for file, name in zip(files, names, strict=True):
        picture = found.get(file)
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
    remarks = []
    if without := [picture for picture in walk.pictures if picture not in classes]:
        such_as = printable("/".join(without[0].below))
        remarks.append(f"pictures that have no class in {path} and are left out: {len(without):,}, such as {such_as}.")
    if unknown:
        what = "pictures" if path.is_dir() else "rows"
        remarks.append(f"{what} of {path} that name no picture that is there: {len(unknown):,}, such as {unknown[0]}.")
    if by_name:
        such_as = f"{by_name[0]} for {'/'.join(found[by_name[0]].below)}"
        remarks.append(
            f"rows of {path} that are matched by the file's name alone: {len(by_name):,}, such as {such_as}."
        )
    splits: dict[str, dict[str, list[Picture]]] = {}
    for split, pictures in splits_of(list(classes)).items():
        for picture in pictures:
            splits.setdefault(split, {}).setdefault(classes[picture], []).append(picture)
    only = next(iter(splits["train"])) if len(splits["train"]) == 1 else ""
    misplaced = f"labels must have two classes or more to train on, got {only} alone in {path}." if only else ""
    folders = {split: walk.root if len(splits) == 1 else walk.root / split for split in splits}
    return Layout(walk.root, splits, folders, tuple(remarks), misplaced=misplaced)


def _matched(walk: Walk, path: Path, files: Sequence[str]) -> tuple[Mapping[str, Picture], list[str], list[str]]:
    """The picture of each file that a table names, those that have none, and those found by their name alone.

    Raises:
        ValueError: when a name is that of several pictures.
    """
    named: dict[str, list[Picture]] = {}
    for picture in walk.pictures:
        named.setdefault(picture.below[-1], []).append(picture)
    found, unknown, by_name = {}, [], []
    for file in dict.fromkeys(files):
        parts = _parts(file)
        name = parts[-1] if parts else ""
        candidates = named.get(name) or named.get(_UPLOADED.sub("", name), [])
        exact = [picture for picture in candidates if picture.below == parts]
        shared = Counter({picture: _shared_end(picture, parts) for picture in candidates})
        most = max(shared.values(), default=0)
        best = exact or [picture for picture in candidates if shared[picture] == most]
        if len(best) > 1:
            others = " and ".join("/".join(picture.below) for picture in best[:2])
            raise ValueError(f"labels must tell pictures apart, got {file} in {path}, which may be {others}.")
        if not best:
            unknown.append(file)
            continue
        found[file] = best[0]
        if not exact and most < 2 and len(parts) > 1:
            by_name.append(file)
    return found, unknown, by_name


def _parts(file: str) -> tuple[str, ...]:
    """The folders and the name in a path or a URL, of which ``?d=`` may hold the path."""
    if "://" in file or file.startswith("/data/"):
        url = urlsplit(file)
        file = unquote(parse_qs(url.query).get("d", [url.path])[0])
    return tuple(part for part in file.replace("\\", "/").split("/") if part not in ("", "."))


def _shared_end(picture: Picture, parts: Sequence[str]) -> int:
    """How many folders and names, from the end, a picture's whole path shares with one that was given."""
    own = (*Path(picture.path).absolute().parts[:-1], picture.below[-1])
    count = 0
    for ours, given in zip(reversed(own), reversed(parts), strict=False):
        if ours != given:
            break
        count += 1
    return count
