"""Downloads: once, and whole or not there."""

from pathlib import Path

import pytest
import torch

from bnn_lightning.data.downloads import fetch
from bnn_lightning.files import atomic_write
from tests.helpers import run_together, write_idx

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.mark.slow
def test_a_set_is_downloaded_once_and_appears_whole(tmp_path):
    code = """
import os
from pathlib import Path
from bnn_lightning.data.downloads import fetch

place = Path("root/SET/raw/file")
def download(folder):
    Path("downloads").open("a").write("x")
    target = Path(folder, "SET", "raw", "file")
    target.parent.mkdir(parents=True)
    with target.open("w") as file:
        for _ in range(50):
            file.write("part"); file.flush(); time.sleep(0.01)
fetch(Path("root"), "SET", place.is_file, download)
print(len(place.read_text()))
"""
    assert [out.split() for out in run_together(code, 4)] == [["200"]] * 4
    assert Path("downloads").read_text() == "x"
    assert {path.name for path in Path("root").iterdir()} - {".SET.lock"} == {"SET"}


def test_a_download_that_was_killed_leaves_nothing_to_be_taken_for_the_data():
    def killed(folder):
        write_idx(Path(folder, "SET", "file"), torch.zeros(3).numpy())
        raise KeyboardInterrupt

    place = Path("root/SET/file")
    with pytest.raises(KeyboardInterrupt):
        fetch(Path("root"), "SET", place.is_file, killed)
    Path("root/.SET.unfinished-of-a-killed-process").mkdir()
    assert not place.exists()
    fetch(Path("root"), "SET", place.is_file, lambda folder: atomic_write(Path(folder, "SET", "file"), b"whole"))
    assert place.read_bytes() == b"whole"
    assert {path.name for path in Path("root").iterdir()} - {".SET.lock"} == {"SET"}
    fetch(Path("root"), "SET", place.is_file, killed)  # it is there: nobody downloads
