"""Decoded pictures in a file that later runs map into memory."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnn_lightning.files import atomic_path, atomic_write, locked, require_space
from bnn_lightning.preprocessing.decoding import Decoder, Reading, read_into
from bnn_lightning.preprocessing.pictures import Picture

_DECODING = 2  # goes up when the same file and settings give other pixels than before


def cached_pixels(folder: Path, pictures: Sequence[Picture], decoder: Decoder) -> tuple[Tensor, Reading]:
    """The pixels of all readable pictures, ``(pictures or more, channels, size, size)``, mapped from a cache file.

    The cache file is written first if there is none for these files, their sizes and dates, and the decoder's
    settings, or if it is not whole. It has room for every file; the rows of the readable ones come first. Where a disk
    or its rights kept a file from being read, later runs read all files again.

    Raises:
        UnwritableError: when the cache file cannot be written.
    """
    settings = [_DECODING, asdict(decoder), [_state(picture.real) for picture in pictures]]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]
    array, record = folder / f"{key}.npy", folder / f"{key}.json"
    shape = (len(pictures), *decoder.shape)
    whole = _whole(array, record, shape)  # without the lock, which nobody can hold in a folder that is only read
    if whole is not None:
        return whole
    with locked(folder / f".{key}.lock"):
        return _whole(array, record, shape) or _written(array, record, shape, pictures, decoder)


def _written(
    array: Path, record: Path, shape: tuple[int, ...], pictures: Sequence[Picture], decoder: Decoder
) -> tuple[Tensor, Reading]:
    record.unlink(missing_ok=True)  # it is written last, when the array is complete
    require_space(array.parent, math.prod(shape))
    with atomic_path(array) as unfinished:
        rows = np.lib.format.open_memmap(unfinished, "w+", np.uint8, shape)
        reading = read_into(rows, (picture.path for picture in pictures), decoder)
        rows.flush()
        del rows
    if reading.is_lasting:
        atomic_write(record, json.dumps(asdict(reading)).encode())
    return _mapped(array), reading


def _whole(array: Path, record: Path, shape: tuple[int, ...]) -> tuple[Tensor, Reading] | None:
    """What is in the cache; None where not all of it is there: the user may have removed it, or a disk have cut it."""
    try:
        pixels = _mapped(array)
    except (OSError, ValueError, EOFError):
        return None
    reading = _recorded(record)
    return None if reading is None or pixels.shape != shape else (pixels, reading)


def _mapped(array: Path) -> Tensor:
    # Copy-on-write, although nothing writes to it, because torch warns about read-only arrays.
    return torch.from_numpy(np.load(array, mmap_mode="c"))


def _recorded(record: Path) -> Reading | None:
    """What became of the files; None where that is not there, or a disk has damaged it."""
    try:
        return Reading(**json.loads(record.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _state(file: str) -> tuple[str, int, int]:
    """What changes when a file does: its name, size and date."""
    try:
        stat = os.stat(file)
    except OSError:  # it has been deleted since the walk; reading it says so
        return file, -1, -1
    return file, stat.st_size, stat.st_mtime_ns
