"""Atomic file writes, checks of free disk space, and locks between processes."""

import csv
import errno
import io
import os
import secrets
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


class UnwritableError(OSError):
    """A file cannot be written; the message says which and why. An earlier version of the file is unchanged."""


class InUseError(RuntimeError):
    """Another process uses a folder that only one process may use at a time."""


def atomic_write(path: Path, content: bytes | memoryview) -> None:
    """Replaces the file ``path`` by ``content`` in one step, and creates its folder if necessary.

    The content goes to a temporary file in the same folder, which is renamed to ``path`` once all of it is on the disk.
    Until then the old file remains, even if the process is killed or the machine loses power.

    Raises:
        UnwritableError: when the disk is full, the folder read-only, and so on.
    """
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file to write; when the ``with`` block ends, that file replaces ``path``.

    When the block raises, ``path`` is unchanged and the temporary file is removed.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    # Several machines may share the folder, and have processes of the same number.
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            put_in_place(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise UnwritableError(f"{path} cannot be written: {error.strerror or error}.") from error


def put_in_place(finished: Path, path: Path) -> None:
    """Gives a file whose content is on the disk the name ``path``, in the same folder, for good and in one step.

    Raises:
        OSError: when it cannot be written.
    """
    os.replace(finished, path)
    _sync_folder(path.parent)


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a CSV file with a header row, atomically (see :func:`atomic_write`).

    Raises:
        UnwritableError: when the file cannot be written.
        ValueError: when a row has a key that is not among ``columns``.
    """
    atomic_write(path, as_utf8(csv_text(columns, rows)))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """What :func:`write_rows` writes."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def expanded_text(text: str) -> str:
    """A path as text with ``~`` and the environment's variables replaced; one that is not set stays as it is."""
    return os.path.expanduser(os.path.expandvars(text))


def expanded(path: str) -> Path:
    """The path that :func:`expanded_text` gives."""
    return Path(expanded_text(path))


def relative_to_cwd(path: Path) -> str:
    """The path relative to the current folder if it lies below it, otherwise ``path`` as it is."""
    here, absolute = Path.cwd(), path.resolve()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)


def as_word(path: Path) -> str:
    """What :func:`relative_to_cwd` gives, as a word of a command that can be copied into a shell."""
    return shlex.quote(relative_to_cwd(path))


def remove_unfinished(folder: Path, name: str) -> None:
    """Deletes the temporary files that processes killed in :func:`atomic_write` have left of ``folder/name``."""
    for file in folder.glob(f".{name}.*"):
        file.unlink(missing_ok=True)


def require_space(folder: Path, needed: int) -> None:
    """Checks that the disk of ``folder``, which need not exist yet, has ``needed`` bytes free.

    Raises:
        UnwritableError: when it has fewer.
    """
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UnwritableError(f"{folder} has {free / 1e6:,.1f} MB free, and {needed / 1e6:,.1f} MB are needed.")


def is_writable(folder: Path, needed: int) -> bool:
    """Whether ``needed`` bytes can be written into ``folder``, found by writing them."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        try:
            probe.write_bytes(bytes(needed))
        finally:
            probe.unlink(missing_ok=True)
    except OSError:
        return False
    return True


@contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[None]:
    """Holds the lock ``file`` during the ``with`` block, against other processes and threads.

    The operating system releases the lock of a process that dies.

    Raises:
        InUseError: when another process holds the lock and ``wait`` is false.
        UnwritableError: when the lock file cannot be created.
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


def as_utf8(text: str) -> bytes:
    """A text as UTF-8; bytes in the names of files that are none, which Python keeps as surrogates, are spelt."""
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace").encode()
    except UnicodeEncodeError:  # surrogates of another kind, as in names of Windows
        return text.encode(errors="backslashreplace")


def _sync_folder(folder: Path) -> None:
    """Flushes a folder's list of files to the disk, so that a rename survives a power loss; impossible on Windows."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)
