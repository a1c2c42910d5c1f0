"""Which picture of a folder a row of a table is about, by the name of its file."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from bnn_lightning.preprocessing.pictures import Picture, Walk
from bnn_lightning.wording import printable

_FILE_COLUMNS = ("file", "filename", "file_name", "image", "image_path", "path", "img", "picture", "name")
# Label Studio puts eight digits of a uuid before the name of a file that was uploaded.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")


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
        named: dict[str, list[Picture]] = {}
        stems: dict[str, list[Picture]] = {}
        for picture in walk.pictures:
            named.setdefault(picture.below[-1], []).append(picture)
            # Tables of ids name pictures without their endings.
            stems.setdefault(PurePosixPath(picture.below[-1]).stem, []).append(picture)
        found, unknown, by_name = {}, [], []
        for file in dict.fromkeys(files):
            parts = _parts(file)
            name = parts[-1] if parts else ""
            candidates = named.get(name) or named.get(_UPLOADED.sub("", name), [])
            if not candidates and name in stems:
                candidates = stems[name]
                if len(names := {picture.below[-1] for picture in candidates}) == 1:
                    parts = (*parts[:-1], *names)
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
        return cls(found, unknown, by_name)

    def remarks(self, walk: Walk, path: Path, labelled: Collection[Picture], label: str) -> list[str]:
        """A sentence about pictures without a ``label``, about rows without a picture, and about names alone."""
        remarks = []
        if without := [picture for picture in walk.pictures if picture not in labelled]:
            such_as = printable("/".join(without[0].below))
            remarks.append(
                f"pictures that have no {label} in {path} and are left out: {len(without):,}, such as {such_as}."
            )
        if self.unknown:
            what, such_as = "pictures" if path.is_dir() else "rows", self.unknown[0]
            remarks.append(
                f"{what} of {path} that name no picture that is there: {len(self.unknown):,}, such as {such_as}."
            )
        if self.by_name:
            such_as = f"{self.by_name[0]} for {'/'.join(self.found[self.by_name[0]].below)}"
            remarks.append(
                f"rows of {path} that are matched by the file's name alone: {len(self.by_name):,}, such as {such_as}."
            )
        return remarks


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
