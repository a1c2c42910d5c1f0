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
from bnn_lightning.preprocessing.pictures import Picture, flat_name, is_leftover
from bnn_lightning.wording import printable

_THUMBNAIL = 160  # pixels a side
_UNFIT = re.compile(r'^$|^ |[. ]$|[/\\:*?"<>|\x00-\x1f]')  # what the name of a folder cannot have on every disk


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
        raise UsageError(
            f"--to must be a new or an empty folder, got {folder}, which has files; --data.labels takes several."
        )


def check_classes(classes: Sequence[str]) -> None:
    """Refuses classes whose names would not come back as they are from names of folders, on whatever disk.

    Raises:
        UsageError: when one cannot be such a name, or two differ by case alone.
    """
    cure = "without --to, a table for --data.labels takes any class"
    if unfit := [name for name in classes if _UNFIT.search(name) or is_leftover(name) or len(os.fsencode(name)) > 255]:
        raise UsageError(f"--to needs classes that can be names of folders, got {printable(unfit[0])}; {cure}.")
    known: dict[str, str] = {}
    for name in classes:
        if (other := known.setdefault(name.casefold(), name)) != name:
            raise UsageError(f"--to needs classes that differ by more than case, got {other} and {name}; {cure}.")


def laid_out(pictures: Sequence[Picture], classes: Sequence[str], folder: Path, link: bool) -> list[str]:
    """Copies or links each picture into ``folder/CLASS``, by a name that no other picture of the pool ever gets.

    Returns:
        where each of them lies, below ``folder``.

    Raises:
        UnwritableError: when a file cannot be written, or is there.
    """
    places = [folder / name / flat_name(picture.below) for picture, name in zip(pictures, classes, strict=True)]
    for picture, place in zip(pictures, places, strict=True):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(place):
                raise UnwritableError(f"{place} cannot be written: another file is called so there.")
            if link:
                place.symlink_to(picture.path.resolve())
            else:
                with atomic_path(place) as unfinished:
                    shutil.copyfile(picture.path, unfinished)
        except OSError as error:
            if isinstance(error, UnwritableError):
                raise
            raise UnwritableError(f"{place} cannot be written: {error.strerror or error}.") from error
    return [str(place.relative_to(folder)) for place in places]


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
