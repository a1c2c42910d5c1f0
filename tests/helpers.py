"""What tests of several rooms call: the repository's folder and files that are written by hand."""

from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent


def write_idx(path, array):
    """An IDX file, written by numpy alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())
