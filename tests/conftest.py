"""Fixtures that every room's tests share."""

import numpy as np
import pytest
import torch
from hypothesis import settings

from tests.helpers import write_idx

settings.register_profile("thorough", settings(max_examples=3000))  # 30 times the default, for tests/test_fuzzing.py


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch):
    """For tests of the command line, which works where it stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BNN_DATA", raising=False)


@pytest.fixture
def without_figures(monkeypatch):
    """``bnn test`` draws none: for tests that read its numbers, as drawing is half of what a small test costs."""
    monkeypatch.setattr("bnn_lightning.cli.verbs.test.draw_tests", lambda *words: [])


@pytest.fixture
def fake_mnist(tmp_path):
    """Writes a data set in MNIST's files: ``fake_mnist(train, test, name="MNIST")`` gives the root."""

    def write(train=200, test=50, name="MNIST"):
        rng = np.random.default_rng(0)
        for part, count in (("train", train), ("t10k", test)):
            folder = tmp_path / "root" / name / "raw"
            write_idx(folder / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
            write_idx(folder / f"{part}-labels-idx1-ubyte", rng.integers(0, 10, count))
        return str(tmp_path / "root")

    return write
