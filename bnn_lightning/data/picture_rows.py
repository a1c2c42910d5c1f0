"""Which picture of a folder a row of a table is about, by the name of its file."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from bnn_lightning.preprocessing.pictures import Picture, Walk, composed, flat_name
from bnn_lightning.wording import printable

_FILE_COLUMNS = ("filename", "file", "file_name", "image", "image_path", "path", "img", "picture", "name")
# Label Studio puts eight digits of a uuid before the name of a file that was uploaded, and Django cleans the name.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
# Roboflow calls a.png a_png.rf.HASH.jpg, with a dash for what is no letter, digit or underscore.
_OF_ROBOFLOW = re.compile(r"\.rf\.[^.]+\.\w+$")


def column_called(names: Sequence[str], known: Sequence[str]) -> int | None:
    """The first column with one of these names, however it is written; None where there is none."""
    lower = [name.lower().replace(" ", "_") for name in names]
    return next((lower.index(name) for name in known if name in lower), None)


def file_column(names: Sequence[str], index: Sequence[str] = ()) -> int:
    """The column of files: by its name, or the first that does not number the rows."""
    called = column_called(names, _FILE_COLUMNS)
    return next(place for place, name in enumerate(names) if name not in index) if called is None else called


@dataclass(frozen=True)
class Matched:
    """The pictures of the files that a table names.

    Args:
        found: the picture of each file that has one.
        unknown: files that have none.
        by_name: files that are in other folders than their pictures, found by their names alone.
    """

    found: Mapping[str, Picture]
    unknown: Sequence[str]
    by_name: Sequence[str]

    @classmethod
    def of(cls, walk: Walk, path: Path, files: Sequence[str]) -> Self:
        """Those of the files that the table ``path`` names.

        Raises:
            ValueError: when a name is that of several pictures.
        """
        names = _Names(walk.pictures)
        found, unknown, by_name = {}, [], []
        for file in dict.fromkeys(files):
            # A path below /data/ may be that of an upload to Label Studio, or of a file on this machine.
            readings = list(dict.fromkeys([_parts(file), _parts(_path_in(file))]))
            best, agreeing = max(map(names.best, readings), key=lambda found: (bool(found[0]), found[1]))
            if len(best) > 1:
                others = " and ".join("/".join(below) for below in sorted(picture.below for picture in best)[:2])
                raise ValueError(f"labels must tell pictures apart, got {file} in {path}, which may be {others}.")
            if not best:
                unknown.append(file)
                continue
            found[file] = best[0]
            if agreeing < 2 <= len(readings[-1]):
                by_name.append(file)
        return cls(found, unknown, by_name)

    def remarks(self, path: Path) -> list[str]:
        """A sentence about rows of the table ``path`` without a picture, and one about names alone."""
        remarks = []
        if self.unknown:
            remarks.append(
                f"rows of {path} that name no picture that is there: {len(self.unknown):,}, such as {self.unknown[0]}."
            )
        if self.by_name:
            such_as = f"{self.by_name[0]} for {'/'.join(self.found[self.by_name[0]].below)}"
            remarks.append(
                f"rows of {path} that are matched by the file's name alone: {len(self.by_name):,}, such as {such_as}."
            )
        return remarks


def on_pictures_without(label: str, where: str, walk: Walk, labelled: Collection[str]) -> list[str]:
    """A sentence about pictures whose real files are not ``labelled``, if there are any."""
    without = ["/".join(picture.below) for picture in walk.pictures if picture.real not in labelled]
    if not without:
        return []
    such_as = printable(without[0])
    return [f"pictures that have no {label} in {where} and are left out: {len(without):,}, such as {such_as}."]


class _Names:
    """Pictures by their names, and by as much of their paths as a table may have."""

    def __init__(self, pictures: Sequence[Picture]):
        self._below = {picture.below: picture for picture in pictures}
        self._named: dict[str, list[Picture]] = defaultdict(list)
        self._laid_out: dict[str, list[Picture]] = defaultdict(list)
        self._uploaded: dict[str, list[Picture]] = defaultdict(list)
        self._of_roboflow: dict[str, list[Picture]] = defaultdict(list)
        self._names_of_stem: dict[str, set[str]] = defaultdict(set)
        self._from_end: dict[str, list[tuple[tuple[str, ...], Picture]]] = {}
        for picture in pictures:
            name, laid_out = picture.below[-1], flat_name(picture.below)
            self._named[name].append(picture)
            self._laid_out[laid_out].append(picture)
            for each in {name, laid_out}:
                for cleaned in {_cleaned(each), _cleaned(unicodedata.normalize("NFD", each))}:
                    self._uploaded[cleaned].append(picture)
                self._of_roboflow[_by_roboflow(each)].append(picture)
            # Tables of ids name pictures without their endings.
            self._names_of_stem[PurePosixPath(name).stem].add(name)

    def best(self, parts: tuple[str, ...]) -> tuple[list[Picture], int]:
        """The pictures that agree best with folders and a name, and in how many of these they agree, from the end."""
        if parts in self._below:
            return [self._below[parts]], len(parts)
        name = parts[-1] if parts else ""
        if name in self._named:
            return self._agreeing(parts)
        if candidates := self._laid_out.get(name) or self._renamed(name):
            return candidates, 0
        names = self._names_of_stem.get(name, set())
        if len(names) == 1:
            return self.best((*parts[:-1], *names))
        return [picture for each in names for picture in self._named[each]], 0

    def _agreeing(self, parts: tuple[str, ...]) -> tuple[list[Picture], int]:
        """Of the pictures of the name in ``parts`` those whose whole paths agree best, and in how many names.

        The paths of a name are sorted from their ends once: folders may hold thousands of files of the same name, and
        the table a row for each.
        """
        name, given = parts[-1], parts[::-1]
        if name not in self._from_end:
            paths = ((_from_end(picture), picture) for picture in self._named[name])
            self._from_end[name] = sorted(paths, key=lambda path: path[0])
        paths_of_name = self._from_end[name]
        for count in range(len(given), 1, -1):
            start, stop = (
                bisect(paths_of_name, given[:count], key=lambda path: path[0][:count])
                for bisect in (bisect_left, bisect_right)
            )
            if start < stop:
                return [picture for _, picture in paths_of_name[start:stop]], count
        return self._named[name], 1

    def _renamed(self, name: str) -> list[Picture]:
        """The pictures that a labelling tool may have given this name."""
        uploaded, of_roboflow = _UPLOADED.sub("", name), _OF_ROBOFLOW.sub("", name)
        if uploaded != name:
            return self._uploaded.get(uploaded) or self._named.get(uploaded, [])
        return self._of_roboflow.get(of_roboflow, []) if of_roboflow != name else []


def _cleaned(name: str) -> str:
    """What Django makes of the name of a file that is uploaded."""
    return composed(re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_")))


def _by_roboflow(name: str) -> str:
    """What Roboflow makes of the name of a file, before its hash."""
    path = PurePosixPath(name)
    return re.sub(r"[^A-Za-z0-9_]+", "-", path.stem) + f"_{path.suffix[1:]}"


def _path_in(file: str) -> str:
    """The path in a URL, which ``?d=`` may hold."""
    if "://" not in file and not file.startswith("/data/"):
        return file
    url = urlsplit(file)
    return unquote(parse_qs(url.query).get("d", [url.path])[0])


def _parts(file: str) -> tuple[str, ...]:
    return tuple(part for part in composed(file).replace("\\", "/").split("/") if part not in ("", "."))


def _from_end(picture: Picture) -> tuple[str, ...]:
    """A picture's name and the folders of its whole path, from the end."""
    return (picture.below[-1], *map(composed, Path(picture.path).absolute().parts[-2::-1]))
