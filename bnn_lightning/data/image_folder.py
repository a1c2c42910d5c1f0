"""A user's own pictures: one folder a class."""

import hashlib
import json
import math
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from bnn_lightning.data.base import DataNotFoundError, ImageData, stratified_split
from bnn_lightning.data.loader import Images
from bnn_lightning.files import locked, require_space, whole, write_whole


class ImageFolder(ImageData):
    """Pictures in ``root/train/CLASS``, ``root/val/CLASS`` and ``root/test/CLASS``, or in ``root/CLASS``.

    ``root/CLASS`` alone is split by seed and class: a fifth is the test set. Where there is ``root/val``, it is the
    hold-out and ``val_split`` is not used. ``predict`` takes every picture below root, whatever the folders, or root
    may be a single file. Each picture is resized so that its shorter side fits, and cut to the middle square. Pictures
    count as grey only where every training picture is grey. What cannot be read is left out, with a warning.

    Args:
        cache: a folder for what has been read: later runs take their pixels from files there (uint8, mapped into
            memory, so that they may be more than fits) until a picture, its name or its date changes; null keeps none.
    """

    is_one_set = False

    def __init__(self, *args: Any, cache: str | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.cache = cache

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        folder = self._any_folder
        if not folder.is_dir():
            return ()
        classes = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        return tuple(sorted(path.name for path in classes if _pictures(path)))

    @cached_property
    def native_channels(self) -> int:  # type: ignore[override]
        for file in _pictures(self._any_folder):
            try:
                with _opened(file) as picture:
                    if picture.mode not in ("1", "L", "LA", "I", "F") and not picture.mode.startswith("I;16"):
                        return 3
            except Exception:
                continue  # reading it for real says what is wrong
        return 1

    def load_train(self) -> Images:
        files, labels = self._labelled("train")
        if self._split_by_hand:
            _, train = stratified_split(labels, 0.2, self.seed)
            files, labels = [files[index] for index in train], labels[train]
        return self._read(files, labels)

    def load_holdout(self) -> Images | None:
        return self._read(*self._labelled("val")) if (self.root / "val").is_dir() else None

    def load_test(self) -> Images:
        files, labels = self._labelled("test")
        if self._split_by_hand:
            test, _ = stratified_split(labels, 0.2, self.seed)
            files, labels = [files[index] for index in test], labels[test]
        return self._read(files, labels)

    def load_predict(self) -> Images:
        files = [self.root] if self.root.is_file() else _pictures(self.root)
        if not files:
            raise DataNotFoundError(f"ImageFolder found no pictures: looked for {_KINDS} below {self.root}.")
        return self._read(files, torch.full((len(files),), -1), none_is_an_error=False)

    def load_ood(self) -> Images:
        return self.load_predict()  # whatever the folders: what matters is that they are from elsewhere

    def predict_names(self) -> list[str]:
        return [str(file) for file in self._files_read]

    def prepare_like(self, description: dict[str, Any], labelled: bool = True) -> None:
        # A folder of pictures to test on may lack some of the classes; its labels follow the checkpoint's.
        if labelled and set(self.class_names) <= set(description["class_names"]):
            self.class_names = tuple(description["class_names"])
        super().prepare_like(description, labelled)

    @property
    def splits_test_by_seed(self) -> bool:  # type: ignore[override]
        return self._split_by_hand

    @property
    def _split_by_hand(self) -> bool:
        return not any((self.root / part).is_dir() for part in ("train", "test"))

    def _folder(self, part: str) -> Path:
        return self.root if self._split_by_hand else self.root / part

    @property
    def _any_folder(self) -> Path:
        """That of the training pictures; to read class names off, that of test will do where there is no other."""
        train = self._folder("train")
        return train if train.is_dir() else self._folder("test")

    def _labelled(self, part: str) -> tuple[list[Path], Tensor]:
        folder = self._folder(part)
        files, labels = [], []
        for label, name in enumerate(self.class_names):
            found = _pictures(folder / name)
            files += found
            labels += [label] * len(found)
        if not files:
            raise DataNotFoundError(
                f"ImageFolder found no {part} pictures: looked for {_KINDS} in {folder / 'CLASS'}, with one folder for "
                "each class. Name the folder that holds them with --data.root."
            )
        return files, torch.tensor(labels)

    def _read(self, files: list[Path], labels: Tensor, none_is_an_error: bool = True) -> Images:
        if self.image_size is None:
            raise ValueError("image_size must be given for ImageFolder, whose pictures have no one size, such as 32.")
        shape = (self.in_channels, self.image_size, self.image_size)
        if self.cache is None:
            found = [(index, pixels) for index, pixels in enumerate(self._decoded(files, shape)) if pixels is not None]
            kept = [index for index, _ in found]
            pixels = torch.from_numpy(np.array([pixels for _, pixels in found], np.uint8).reshape(-1, *shape))
            images = Images(pixels, labels[kept])
        else:
            pixels, kept = self._from_cache(Path(self.cache), files, shape)
            images = Images(pixels, labels[kept], torch.arange(len(kept)))
        if self.unreadable:
            file, reason = next(iter(self.unreadable.items()))
            warnings.warn(
                f"{len(self.unreadable)} of the pictures cannot be read and are left out, such as {file}: {reason}",
                stacklevel=2,
            )
        self._files_read = [files[index] for index in kept]
        if not kept and none_is_an_error:
            raise DataNotFoundError(f"none of the {len(files)} pictures below {self.root} can be read.")
        return images

    def _decoded(self, files: list[Path], shape: tuple[int, int, int]) -> Iterator[np.ndarray | None]:
        """The pixels of each file, or None for one that cannot be read; ``unreadable`` has the reasons."""
        mode = "L" if shape[0] == 1 else "RGB"
        for file in files:
            try:
                with _opened(file) as picture:
                    upright = ImageOps.exif_transpose(_eight_bits(picture)).convert(mode)
                    square = ImageOps.fit(upright, (shape[1], shape[2]), Image.Resampling.BILINEAR)
            except Exception as error:  # a damaged picture can raise nearly anything
                self.unreadable[file] = str(error) or type(error).__name__
                yield None
                continue
            yield np.array(square).reshape(*shape[1:], shape[0]).transpose(2, 0, 1)

    def _from_cache(self, folder: Path, files: list[Path], shape: tuple[int, int, int]) -> tuple[Tensor, list[int]]:
        """The same from files in ``folder``, which are made where they are missing."""
        stats = [(str(file.resolve()), stat.st_size, stat.st_mtime_ns) for file in files for stat in (file.stat(),)]
        key = hashlib.sha256(json.dumps([shape, stats]).encode()).hexdigest()[:32]
        array, record = folder / f"{key}.npy", folder / f"{key}.json"
        with locked(folder / f".{key}.lock"):
            if not record.is_file():  # which is written last
                require_space(folder, len(files) * math.prod(shape))
                kept: list[int] = []
                with whole(array) as unfinished:
                    # Room for all of them; the rows of those that cannot be read stay behind the last one.
                    rows = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (len(files), *shape))
                    for index, pixels in enumerate(self._decoded(files, shape)):
                        if pixels is not None:
                            rows[len(kept)] = pixels
                            kept.append(index)
                    rows.flush()
                    del rows
                reasons = {str(file): self.unreadable[file] for file in files if file in self.unreadable}
                write_whole(record, json.dumps({"kept": kept, "unreadable": reasons}).encode())
            known = json.loads(record.read_bytes())
            self.unreadable.update({Path(file): reason for file, reason in known["unreadable"].items()})
            # Copy on write: nothing writes to them, but torch warns of arrays that cannot be written to.
            return torch.from_numpy(np.load(array, mmap_mode="c")), known["kept"]


def _opened(file: Path) -> Image.Image:
    """A single picture of a size that can be held; its pixels are not read yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        Image.init()  # loads what reads each format, which open() leaves out where formats are named
        picture = Image.open(file, formats=_FORMATS)
    # Cameras put previews behind the picture (MPO); in other formats nothing says which of several is meant.
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
        with picture:
            raise ValueError(f"it has {picture.n_frames} pictures or frames, not one")  # type: ignore[attr-defined]
    return picture


def _eight_bits(picture: Image.Image) -> Image.Image:
    """The picture with 256 levels; Pillow's own conversion cuts everything above 255 off."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers of unknown range; save it with 8 or 16 bits")
    return picture


_KINDS = ", ".join(IMG_EXTENSIONS)
# Those of the endings, whatever the ending. Pillow knows more; for one of them it starts another program.
_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP")


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS and path.is_file())
