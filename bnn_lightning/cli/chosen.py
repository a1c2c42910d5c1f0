"""Pictures that were chosen to be labelled: laid out in folders by class, and small copies of them for a sheet."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.data import ImageData, ImageFolder
from bnn_lightning.files import UnwritableError, atomic_path
from bnn_lightning.preprocessing.decoding import Decoder, read_into

_THUMBNAIL = 160  # pixels a side


def check_folder(folder: Path, pool: Path) -> None:
    """Refuses a folder for the chosen whose pictures would be part of the pool, one with others, or one that is a file.

    Raises:
        UsageError: when it is.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--to must be a folder, got the file {folder}.")
    if folder.resolve().is_relative_to(pool.resolve()):
        raise UsageError(
            f"--to must lie outside of the pool {pool}, whose pictures would be there twice, got {folder}."
        )
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"--to must be a new or an empty folder, got {folder}, which holds what was chosen before.")


def laid_out(files: Sequence[Path], classes: Sequence[str], folder: Path, link: bool) -> list[str]:
    """Copies or links each file into ``folder/CLASS``; a name that is taken there gets a number.

    Returns:
        where each of them lies, below ``folder``.

    Raises:
        UnwritableError: when a file cannot be written.
    """
    places = []
    for file, name in zip(files, classes, strict=False):
        inside = folder / (re.sub(r'[/\\:*?"<>|\x00-\x1f]', "_", name).strip(". ") or "_")
        try:
            inside.mkdir(parents=True, exist_ok=True)
            place, number = inside / file.name, 0
            while os.path.lexists(place):
                number += 1
                place = inside / f"{file.stem}_{number}{file.suffix}"
            if link:
                place.symlink_to(file.resolve())
            else:
                with atomic_path(place) as unfinished:
                    shutil.copyfile(file, unfinished)
        except OSError as error:
            if isinstance(error, UnwritableError):
                raise
            raise UnwritableError(f"{inside} cannot be written: {error.strerror or error}.") from error
        places.append(str(place.relative_to(folder)))
    return places


def thumbnails(data: ImageData, images: Sequence[int]) -> list[Tensor]:
    """Small copies of pictures, uint8 ``(channels, height, width)``: of files as they are, else as prepared."""
    source: Any = data
    if not isinstance(data, ImageFolder):
        return list(source.predict[torch.tensor(images, dtype=torch.int64)].pixels)
    decoder = Decoder(3, _THUMBNAIL, "pad", "white")
    pixels = np.empty((len(images), *decoder.shape), np.uint8)
    served = data.predict_files()
    files = [served[image] for image in images]
    reading = read_into(pixels, files, decoder)
    lost = torch.full(decoder.shape, 255, dtype=torch.uint8)  # the file has gone since it was scored
    shown = dict(zip(reading.kept, torch.from_numpy(pixels), strict=False))
    return [shown.get(place, lost) for place in range(len(files))]
