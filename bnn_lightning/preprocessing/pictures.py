"""One walk of a picture folder: its picture files, and everything that is passed over on the way."""

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import features

from bnn_lightning.wording import printable

_READ = "png apng jpg jpeg jpe jfif jif gif webp bmp dib ppm pgm pbm pnm tif tiff"
PICTURE_ENDINGS = frozenset(f".{ending}" for ending in _READ.split()) | ({".avif"} if features.check("avif") else set())
"""Endings of files that are read, in small letters."""

_NOT_READ = "avif heic heif hif jxl jp2 j2k jpx svg psd xcf ai eps pdf exr hdr tga ico dcm nii raw dng cr2 cr3 nef arw"
UNREAD_ENDINGS = frozenset(f".{ending}" for ending in f"{_NOT_READ} orf raf rw2 pef srw".split()) - PICTURE_ENDINGS
"""Endings of files that hold pictures too, and that other programs convert to PNG or JPEG."""

# Beside hidden files, what file managers and network disks leave in folders: thumbnails, resource forks, deleted files.
_LEFTOVERS = frozenset(
    (
        *("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "#snapshot", "lost+found", "__pycache__"),
        *("system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    )
)

_SPLITS = {"train": "train training", "val": "val valid validation dev", "test": "test testing"}
SPLIT_OF = {name: split for split, names in _SPLITS.items() for name in names.split()}
"""The split that a folder's name, in small letters, stands for."""

_LONGEST_STEM = 50  # characters of up to four bytes; disks take names of 255 bytes


class Picture(NamedTuple):
    """A file with a picture's ending.

    Args:
        path: as it is shown, below the root as the user wrote it.
        below: names of the folders between root and file, and of the file. Accents are as most programs write them
            (Unicode's NFC), whatever the disk has.
        real: where the file lies once all links are followed; two paths to one file have the same.
    """

    path: Path
    below: tuple[str, ...]
    real: str


@dataclass(frozen=True)
class Walk:
    """What lies below ``root``; a root that is a file is the one picture.

    Args:
        root: where the walk began.
        pictures: all picture files, sorted by their folders and names.
        not_files: what has a picture's name and is no file, such as a link that leads nowhere, with the reason.
        passed_over: number of other files, by folder (its names below root) and ending; "" is no ending.
        folders: those that were looked into, by their names below root.
        closed: folders that could not be opened, with the reason.
        hidden: numbers of ``files`` and ``folders`` that are hidden or that another program has left.
        loops: links that lead back to where the walk had come from, and were not followed.
    """

    root: Path
    pictures: list[Picture] = field(default_factory=list)
    not_files: dict[Path, str] = field(default_factory=dict)
    passed_over: Counter[tuple[tuple[str, ...], str]] = field(default_factory=Counter)
    folders: set[tuple[str, ...]] = field(default_factory=set)
    closed: dict[Path, str] = field(default_factory=dict)
    hidden: Counter[str] = field(default_factory=Counter)
    loops: list[Path] = field(default_factory=list)

    @property
    def has_links(self) -> bool:
        """Whether a link led to any of the pictures, so that two of them may be one file."""
        real_root = composed(os.path.realpath(self.root))
        return any(composed(picture.real) != os.path.join(real_root, *picture.below) for picture in self.pictures)


class _Folder(NamedTuple):
    """A folder to look into, with the real paths of the folders that led to it, its own last."""

    path: str
    below: tuple[str, ...]
    chain: tuple[str, ...]
    behind_link: bool


def walk(root: Path) -> Walk:
    """Looks into every folder below ``root`` that is not hidden, and follows links.

    A link is not followed back to a folder that contains it or the root. Behind a link, further links lead on only to
    places where the walk has not been, so that folders that link to each other cannot make it endless.
    """
    found, real_root = Walk(root), os.path.realpath(root)
    if os.path.isfile(root):  # unlike Path.is_file, it does not raise for a name that is too long
        found.pictures.append(Picture(root, (composed(root.name),), real_root))
        return found
    seen = {real_root}
    # Folders behind links come last: what can be reached without a link is known by then.
    waiting = deque([_Folder(str(root), (), (real_root,), False)])
    while waiting:
        folder = waiting.popleft()
        found.folders.add(folder.below)
        try:
            with os.scandir(folder.path) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue  # the root is not there, or the folder has just been deleted
        except OSError as error:
            found.closed[Path(folder.path)] = error.strerror or str(error)
            continue
        inner = []
        for entry in ordered:
            kind = _kind(entry)
            if is_leftover(entry.name):
                found.hidden["folders" if kind == "folder" else "files"] += 1
            elif kind != "folder":
                _note_file(found, folder, entry, kind)
            elif (inside := _inside(entry, folder, real_root, seen)) is None:
                found.loops.append(Path(entry.path))
            else:
                seen.add(inside.chain[-1])
                inner.append(inside)
        waiting.extend(inside for inside in inner if inside.behind_link)
        waiting.extendleft(inside for inside in reversed(inner) if not inside.behind_link)
    found.pictures.sort(key=lambda picture: picture.below)
    return found


def by_folder(pictures: Iterable[Picture], depth: int) -> tuple[dict[str, list[Picture]], list[Picture]]:
    """Pictures by the name of their folder at ``depth`` below the root, and those that lie in no folder there."""
    folders: dict[str, list[Picture]] = defaultdict(list)
    loose: list[Picture] = []
    for picture in pictures:
        (folders[printable(picture.below[depth])] if len(picture.below) > depth + 1 else loose).append(picture)
    return dict(folders), loose


def composed(name: str) -> str:
    """A name whose accents are one character with their letter, so that names that look the same are the same."""
    return unicodedata.normalize("NFC", name)


def flat_name(below: tuple[str, ...]) -> str:
    """A name for a picture outside of its folders that no other picture below the root has, and that never changes.

    Directly below the root it is the file's own; else the file's with a digest of its whole place.
    """
    if len(below) == 1:
        return below[0]
    name, digest = PurePosixPath(below[-1]), hashlib.sha256(os.fsencode("/".join(below))).hexdigest()[:12]
    return f"{name.stem[:_LONGEST_STEM]}-{digest}{name.suffix}"


def is_leftover(name: str) -> bool:
    """Whether a file or a folder is passed over, for it is hidden or another program has left it."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def folder_above(root: Path) -> Path:
    """The folder that ``root`` lies in, as short as ``root`` was written where that tells it."""
    return root.parent if root.parent.name else root.resolve().parent


def _kind(entry: os.DirEntry[str]) -> str:
    """``folder`` or ``file``, or why it is neither; nothing but files may be opened: a pipe would never end."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        return "it is a link to a file that is not there" if entry.is_symlink() else "it is no regular file"
    except OSError as error:  # a link to itself, or into a folder that may not be entered
        return error.strerror or str(error)


def _note_file(found: Walk, folder: _Folder, entry: os.DirEntry[str], kind: str) -> None:
    ending = os.path.splitext(entry.name)[1].lower()
    if ending not in PICTURE_ENDINGS:
        found.passed_over[folder.below, ending] += 1
    elif kind != "file":
        found.not_files[Path(entry.path)] = kind
    else:
        real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(folder.chain[-1], entry.name)
        found.pictures.append(Picture(Path(entry.path), (*folder.below, composed(entry.name)), real))


def _inside(entry: os.DirEntry[str], folder: _Folder, real_root: str, seen: set[str]) -> _Folder | None:
    """The folder ``entry`` in ``folder``; None where it leads back."""
    is_link = entry.is_symlink()
    real = os.path.realpath(entry.path) if is_link else os.path.join(folder.chain[-1], entry.name)
    leads_back = real in folder.chain or (is_link and Path(real_root).is_relative_to(real))
    if leads_back or (is_link and folder.behind_link and real in seen):
        return None
    return _Folder(
        entry.path, (*folder.below, composed(entry.name)), (*folder.chain, real), folder.behind_link or is_link
    )
