"""Letters: notMNIST from its archive or from IDX files, and the ones rendered from fonts."""

import gzip
import io
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from bnn_lightning.data import DataNotFoundError, NotMNIST, RenderedLetters
from bnn_lightning.data.notmnist import letter_fonts, read_letters
from tests.helpers import write_idx


def test_notmnist_removes_repeats_before_its_split(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 28, 28))
    images[50:60] = images[:10]
    write_idx(tmp_path / "notMNIST" / "t10k-images-idx3-ubyte", images)
    write_idx(tmp_path / "notMNIST" / "t10k-labels-idx1-ubyte", np.arange(100) % 10)
    data = NotMNIST(str(tmp_path), val_split=0)
    data.setup()
    assert (data.num_train, len(data.test)) == (72, 18)
    rows = {row.tobytes() for part in (data.train, data.test) for row in part.pixels.flatten(1).numpy()}
    assert len(rows) == 90
    with pytest.raises(DataNotFoundError, match="NotMNIST was not found: looked for notMNIST_small"):
        NotMNIST(str(tmp_path / "elsewhere")).setup()


def write_archive(path, members):
    """A .tar.gz of (name, content); a content that is a TarInfo's type makes a member of that kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes) and len(content) > 1:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content, "/etc/passwd"
                archive.addfile(member)


def png(value, size=(28, 28)):
    stream = io.BytesIO()
    Image.new("L", size, value).save(stream, "PNG")
    return stream.getvalue()


def test_notmnist_from_the_original_archive_counts_what_cannot_be_read(tmp_path):
    letters = [
        (f"notMNIST_small/{letter}/{n}.png", png(10 * label + n))
        for label, letter in enumerate("ABCDEFGHIJ")
        for n in range(5)
    ]
    unreadable = [
        ("notMNIST_small/A/empty.png", b"no picture"),
        ("notMNIST_small/F/cut.png", png(7)[:50]),
        ("notMNIST_small/B/large.png", png(7, (280, 28))),
        ("notMNIST_small/C/huge.png", b"x" * 100_001),
    ]
    ignored = [("notMNIST_small/A/._hidden.png", b"of a Mac"), ("notMNIST_small/readme.txt", b"letters")]
    write_archive(tmp_path / "notMNIST" / "notMNIST_small.tar.gz", [*letters, *unreadable, *ignored])
    data = NotMNIST(str(tmp_path), val_split=0)
    with pytest.warns(UserWarning, match=r"4 unreadable files of notMNIST_small\.tar\.gz left out"):
        images = data.load_ood()
    assert images.labels.bincount().tolist() == [5] * 10
    assert (images.pixels[:, 0, 0, 0] // 10 == images.labels).all()
    reasons = {path.name: reason for path, reason in data.unreadable.items()}
    assert reasons.keys() == {"empty.png", "cut.png", "large.png", "huge.png"}
    assert reasons["empty.png"] == "it is no PNG picture"
    assert reasons["large.png"] == "it has 280x28 pixels, not 28x28"
    assert data.notes == ["4 unreadable files of notMNIST_small.tar.gz left out"]
    assert list(tmp_path.rglob("*.png")) == []  # it is read as it is, and not unpacked


@pytest.mark.parametrize(
    "member",
    [
        ("../A/a.png", png(1)),
        ("/A/a.png", png(1)),
        ("A/a.png", tarfile.SYMTYPE),
        ("A/a.png", tarfile.LNKTYPE),
        ("A/a.png", tarfile.CHRTYPE),
    ],
)
def test_an_archive_that_could_do_harm_is_refused(tmp_path, member):
    path = tmp_path / "notMNIST" / "notMNIST_small.tar.gz"
    write_archive(path, [("A/0.png", png(0)), member])
    with pytest.raises(ValueError, match="a link, a device or a path out of its folder"):
        read_letters(path)


def test_archives_that_are_none_are_refused(tmp_path):
    whole = tmp_path / "whole.tar.gz"
    write_archive(whole, [(f"A/{n}.png", os.urandom(5000)) for n in range(20)])
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:20_000])
    (tmp_path / "none.tar.gz").write_bytes(b"nothing")
    for path in (cut, tmp_path / "none.tar.gz"):
        with pytest.raises(ValueError, match=r"is not a whole \.tar\.gz archive"):
            read_letters(path)
    with pytest.raises(ValueError, match="got none that can be read"):
        read_letters(whole)


def test_an_archive_that_is_damaged_within_is_refused(tmp_path):
    path = tmp_path / "letters.tar.gz"
    write_archive(path, [(f"A/{n}.png", png(n)) for n in range(20)])
    assert len(read_letters(path)[0]) == 20
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[10 * 1024 + 100] ^= 1  # in the header of a member, which tarfile then takes for the end
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(ValueError, match=r"is not a whole \.tar\.gz archive \(damaged after 10 pictures\)"):
        read_letters(path)
    path.write_bytes(gzip.compress(bytes(content[:10240]))[:-8] + bytes(8))  # gzip's checksum
    with pytest.raises(ValueError, match=r"is not a whole \.tar\.gz archive \(CRC check failed"):
        read_letters(path)


def test_rendered_letters_are_always_the_same_and_named_as_that():
    data = RenderedLetters(val_split=0)
    images = data.load_ood()
    assert images.labels.bincount().tolist() == [len(letter_fonts()) * 8] * 10
    assert len(letter_fonts()) >= 20
    assert images.pixels.flatten(1).amax(1).min() > 100  # no font without these letters
    assert torch.equal(images.pixels, RenderedLetters().load_ood().pixels)
    assert data.notes == ["letters rendered from fonts, not notMNIST"]
    data.setup()
    assert len(data.test) + data.num_train == len(images)
