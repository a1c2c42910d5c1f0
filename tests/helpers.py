"""What tests of several rooms share: paths, words of the command line, and files that are written or read by hand."""

import csv
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
LENET = str(ROOT / "configs" / "lenet_lrt.yaml")
SMALL = ["--data", "MNIST5k", "--data.train_subset", "600"]  # 480 images to train on, 120 held out

# For a file whose tests call main(): it sets filters of its own, which pytest's would undo.
ON_THE_COMMAND_LINE = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("in_an_empty_folder")]


def write_idx(path, array):
    """An IDX file, written by numpy alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def table(path):
    """The rows of a CSV file, each a dictionary of texts."""
    return list(csv.DictReader(path.read_text().splitlines()))


def said(capsys):
    """What has been printed since this was last asked, errors last."""
    captured = capsys.readouterr()
    return captured.out + captured.err
