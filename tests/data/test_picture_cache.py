"""The cache of decoded pictures: what is in it can be relied on, and what cannot be relied on is made anew."""

import errno
import os

import numpy as np
import pytest
from PIL import Image

from bnn_lightning.data import picture_cache
from bnn_lightning.data.picture_cache import cached_pixels
from bnn_lightning.files import UnwritableError
from bnn_lightning.preprocessing import decoding
from bnn_lightning.preprocessing.decoding import Decoder
from bnn_lightning.preprocessing.pictures import walk


@pytest.fixture
def cached(tmp_path):
    """Reads three grey pictures by way of a cache."""
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("L", (8, 8), 50 * number).save(tmp_path / "pictures" / f"{number}.png")
    return lambda: cached_pixels(tmp_path / "cache", walk(tmp_path / "pictures").pictures, Decoder(1, 8))


@pytest.mark.parametrize("damage", ["removed", "cut", "emptied", "another"])
def test_a_cache_file_that_is_not_whole_is_written_again(cached, tmp_path, damage):
    expected = cached()[0].clone()
    (array,) = (tmp_path / "cache").glob("*.npy")
    if damage == "removed":
        array.unlink()
    elif damage == "another":
        np.save(array, np.zeros((2, 1, 8, 8), np.uint8))
    else:
        os.truncate(array, 0 if damage == "emptied" else array.stat().st_size - 1)
    pixels, reading = cached()
    assert pixels.equal(expected)
    assert reading.kept == [0, 1, 2]
    assert np.load(array).shape == (3, 1, 8, 8)


def test_a_damaged_record_is_written_again(cached, tmp_path):
    expected = cached()[0].clone()
    (record,) = (tmp_path / "cache").glob("*.json")
    whole = record.read_bytes()
    for damaged in (b"", whole[:-5], b"\xff" * len(whole), b'{"other": 1}', b"[0]"):
        record.write_bytes(damaged)
        pixels, reading = cached()
        assert pixels.equal(expected)
        assert reading.kept == [0, 1, 2]
        assert record.read_bytes() == whole


def test_a_cache_that_is_whole_may_lie_in_a_folder_that_is_only_read(cached, monkeypatch):
    def refused(file):
        raise UnwritableError(f"{file} cannot be written: Read-only file system.")

    expected = cached()[0].clone()
    monkeypatch.setattr(picture_cache, "locked", refused)
    pixels, reading = cached()
    assert pixels.equal(expected)
    assert reading.kept == [0, 1, 2]


def test_an_error_that_may_pass_is_not_kept(cached, tmp_path, monkeypatch):
    def failing(file, is_passing=True):
        if file.name == "1.png":
            raise OSError(errno.EIO, "Input/output error") if is_passing else OSError("image file is truncated")
        return real(file)

    cached()
    (array,) = (tmp_path / "cache").glob("*.npy")
    array.unlink()  # beside a record of all three
    real = decoding.open_picture
    monkeypatch.setattr(decoding, "open_picture", failing)
    for _ in range(2):
        pixels, reading = cached()
        assert (reading.kept, pixels[:2, 0, 0, 0].tolist()) == ([0, 2], [0, 100])
    monkeypatch.setattr(decoding, "open_picture", real)
    assert cached()[1].kept == [0, 1, 2]
    array.unlink()
    monkeypatch.setattr(decoding, "open_picture", lambda file: failing(file, is_passing=False))
    assert cached()[1].kept == [0, 2]
    monkeypatch.setattr(decoding, "open_picture", real)
    assert cached()[1].kept == [0, 2]  # what is wrong with a file is wrong until it changes
