"""Files that are written whole or not at all, room for them, and locks between processes."""

import csv
import errno
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


class UnwritableError(OSError):
    """A file cannot be written; the message says which and why. What was there before is as it was."""


class InUseError(RuntimeError):
    """Another process is at work where only one can be."""


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Puts ``content`` in the place of the file ``path`` at once, and makes its folder.

    It is written to a file beside it, which moves to its place when all of it is on the disk: until then the old file
    stays, whatever happens to the process or the machine.

    Raises:
        UnwritableError: when the disk is full, the folder read-only, and so on.
    """
    with whole(path) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives the place to write the file to that is put in the place of ``path`` when the ``with`` ends."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise UnwritableError(f"{path} cannot be written: {error.strerror or error}.") from error


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV file, written by :func:`write_whole`."""
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, lines.getvalue().encode())


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    here, there = Path.cwd(), path.resolve()
    return str(there.relative_to(here) if there.is_relative_to(here) else path)


def remove_unfinished(folder: Path, name: str) -> None:
    """Removes what processes that were killed in :func:`write_whole` have left of the file ``name`` of ``folder``."""
    for file in folder.glob(f".{name}.*"):
        file.unlink(missing_ok=True)


def require_space(folder: Path, needed: int) -> None:
    """Makes sure that ``needed`` bytes fit where ``folder`` is, or will be.

    Raises:
        UnwritableError: when they do not.
    """
    existing = next(place for place in (folder, *folder.resolve().parents) if place.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UnwritableError(f"{folder} has {free / 1e6:,.1f} MB free, and {needed / 1e6:,.1f} MB are needed.")


@contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[None]:
    """Keeps other processes (and threads) that ask for the same lock file out; the system frees it when one dies.

    Raises:
        InUseError: when another has it and ``wait`` is false.
        UnwritableError: when the lock file cannot be made.
    """
    lock = FileLock(file, timeout=-1 if wait else 0)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InUseError(f"{file.parent} is in use by another process.") from None
    except OSError as error:
        raise UnwritableError(f"{file.parent} cannot be written: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


def _sync_folder(folder: Path) -> None:
    """Makes the folder's new entry last through a loss of power; Windows has no such call for folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # some networks' folders have no such thing
            raise
    finally:
        os.close(descriptor)
