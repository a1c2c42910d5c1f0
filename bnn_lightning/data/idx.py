"""Reads IDX files, the format of MNIST and its relatives, plain or gzip'd."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_idx(path: Path, dimensions: int) -> Tensor:
    """The uint8 tensor in an IDX file of ``dimensions`` dimensions (3 for images, 1 for labels).

    Raises:
        ValueError: naming the file, when it is not such a file or is cut short.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}); fetch it again.") from None
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError(
            f"{path} must be an IDX file of unsigned bytes with {dimensions} dimensions; its header is not."
        )
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    if len(content) - header != math.prod(shape):
        raise ValueError(f"{path} must hold {math.prod(shape)} bytes for shape {shape}, got {len(content) - header}.")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).copy()).view(shape)
