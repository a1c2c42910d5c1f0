"""IDX files: whole ones are read, damaged ones refused by name."""

import gzip
import os
import re

import numpy as np
import pytest

from bnn_lightning.data.idx import read_idx, read_labelled
from tests.helpers import write_idx


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abc", "must hold 5 bytes for shape [5], got 3."),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01a", "must be an IDX file of unsigned bytes with 1 dimensions"),
        (b"", "must be an IDX file"),
    ],
)
def test_damaged_idx_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_idx(path, 1)
    assert str(path) in str(error.value)


def test_images_and_labels_that_do_not_fit_together_are_refused(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    for pixels, classes, message in (
        (np.zeros((3, 28, 28)), np.zeros(2), r"labels must hold a label for each of the 3 images, got 2\.$"),
        (np.zeros((3, 28, 27)), np.zeros(3), r"images must hold images of 28x28 pixels, got 28x27\.$"),
        (np.zeros((3, 28, 28)), np.full(3, 10), r"labels must hold labels from 0 to 9, got 10\.$"),
        (np.zeros((0, 28, 28)), np.zeros(0), r"images must hold from 1 to .* bytes, its header says \[0, 28, 28\]\.$"),
    ):
        write_idx(images, pixels)
        write_idx(labels, classes)
        with pytest.raises(ValueError, match=message):
            read_labelled(images, labels, 28, 10)


def test_a_small_gzip_file_that_claims_to_be_huge_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    header = bytes([0, 0, 8, 3]) + 3 * (2**31).to_bytes(4, "big")
    path.write_bytes(gzip.compress(header + bytes(10**6)))
    with pytest.raises(ValueError, match=r"images\.gz must hold from 1 to 1,073,741,824 bytes, its header says"):
        read_idx(path, 3)


def test_a_truncated_gzip_file_is_refused(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 3, 232]) + os.urandom(1000))[:-90])
    with pytest.raises(ValueError, match=r"labels\.gz is not a whole gzip file"):
        read_idx(path, 1)
