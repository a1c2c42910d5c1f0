"""Files are whole or not there, and processes at the same work keep out of each other's way."""

import errno
import os
from pathlib import Path

import pytest

from bnn_lightning.files import InUseError, UnwritableError, atomic_write, locked, remove_unfinished, write_rows

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def test_a_file_is_the_old_one_until_the_new_one_is_whole(monkeypatch):
    path = Path("a/b/file")
    atomic_write(path, b"old")
    seen = []

    def full(descriptor):
        seen.append((path.read_bytes(), [file.name for file in path.parent.iterdir()]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UnwritableError, match=r"^a/b/file cannot be written: No space left on device\.$"):
            atomic_write(path, b"new")
    assert seen[0][0] == b"old"
    assert len(seen[0][1]) == 2
    assert (path.read_bytes(), [file.name for file in path.parent.iterdir()]) == (b"old", ["file"])
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_a_killed_process_has_left_is_removed():
    for name in (".last.ckpt.77", "last.ckpt", ".best.ckpt.77"):
        Path(name).write_bytes(b"x")
    remove_unfinished(Path(), "last.ckpt")
    assert sorted(path.name for path in Path().iterdir()) == [".best.ckpt.77", "last.ckpt"]


def test_a_lock_is_for_one_at_a_time():
    lock = Path("folder/.lock")
    with locked(lock), pytest.raises(InUseError, match=r"^folder is in use by another process\.$"), locked(lock, False):
        pass
    with locked(Path("folder/.lock"), wait=False):
        pass


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ('a,"b" | c', '"a,""b"" | c"'),
        (b"\xc3\xa9.png".decode("ascii", "surrogateescape"), "é.png"),  # as the locale C reads it
        (b"\xff.png".decode("utf-8", "surrogateescape"), r"\xff.png"),
        ("\ud800.png", r"\ud800.png"),
    ],
)
def test_a_table_has_every_name_of_a_file(name, written, tmp_path):
    write_rows(tmp_path / "rows.csv", ["file"], [{"file": name}])
    assert (tmp_path / "rows.csv").read_bytes().decode() == f"file\r\n{written}\r\n"
