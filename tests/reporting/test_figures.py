"""Figures."""

import errno
import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from bnn_lightning.files import UnwritableError
from bnn_lightning.reporting import figures

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def test_a_figure_is_the_old_one_until_the_new_one_is_whole(monkeypatch):
    path = Path("figures/curve.png")

    def draw():
        figures.pruning_curve(path, [0, 0.5], [0.9, 0.8], "title")

    draw()
    old = path.read_bytes()

    def half(self, place, **_):
        Path(place).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(UnwritableError, match=r"^figures/curve\.png cannot be written: No space left on device\.$"):
        draw()
    assert (path.read_bytes(), [file.name for file in path.parent.iterdir()]) == (old, ["curve.png"])
