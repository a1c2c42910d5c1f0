"""Reads IDX files, the format of MNIST and similar data sets, plain or gzipped."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn_lightning.data.loader import Images

_MAX_BYTES = 2**30  # the largest published set has 0.64e9 bytes; a small gzip file could otherwise fill the memory


def read_labelled(images: Path, labels: Path, size: int, num_classes: int) -> Images:
    """The grey images of one IDX file, ``size`` x ``size`` pixels, with the labels of another.

    Raises:
        ValueError: when a file cannot be read, is no such IDX file, or the two do not fit together; it names the file.
    """
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise ValueError(f"{labels} must hold a label for each of the {len(pixels)} images, got {len(classes)}.")
    if pixels.shape[1:] != (size, size):
        height, width = pixels.shape[1:]
        raise ValueError(f"{images} must hold images of {size}x{size} pixels, got {height}x{width}.")
    if classes.max() >= num_classes:
        raise ValueError(f"{labels} must hold labels from 0 to {num_classes - 1}, got {classes.max()}.")
    return Images(pixels.unsqueeze(1), classes.long())


def read_idx(path: Path, dimensions: int) -> Tensor:
    """The uint8 tensor in an IDX file of ``dimensions`` dimensions (3 for images, 1 for labels).

    Raises:
        ValueError: when the file cannot be read, is no such IDX file, is cut short or empty; it names the file.
    """
    try:
        with path.open("rb") as file, gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file as content:
            return _read(content, path, dimensions)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}); fetch it again.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from None


def _read(file: Any, path: Path, dimensions: int) -> Tensor:
    header = file.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError(
            f"{path} must be an IDX file of unsigned bytes with {dimensions} dimensions; its header is not."
        )
    shape = [int.from_bytes(header[offset : offset + 4], "big") for offset in range(4, len(header), 4)]
    count = math.prod(shape)
    if not 0 < count <= _MAX_BYTES:
        raise ValueError(f"{path} must hold from 1 to {_MAX_BYTES:,} bytes, its header says {shape}.")
    content = file.read(count + 1)
    if len(content) != count:
        length = "more" if len(content) > count else f"{len(content)}"
        raise ValueError(f"{path} must hold {count} bytes for shape {shape}, got {length}.")
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy()).view(shape)
