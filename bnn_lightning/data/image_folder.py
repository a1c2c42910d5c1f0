"""ImageFolder: a user's own pictures, in one folder per class."""

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

from bnn_lightning.data.base import DataNotFoundError, ImageData
from bnn_lightning.data.loader import Images
from bnn_lightning.data.splits import stratified_split
from bnn_lightning.files import atomic_path, atomic_write, locked, require_space


class ImageFolder(ImageData):
    """Pictures in ``root/train/CLASS``, ``root/val/CLASS`` and ``root/test/CLASS``, or in ``root/CLASS``.

    Where there is only ``root/CLASS``, a fifth of each class, chosen by ``seed``, is the test set. Where there is
    ``root/val``, it is the hold-out and ``val_split`` is not used. ``predict`` takes every picture below root, whatever
    the folders; root may also be a single file. Each picture is resized so that its shorter side fits, and cropped to
    the middle square. Pictures are grey if every training picture is grey, otherwise RGB. Files that cannot be read are
    left out, with a warning.

    Args:
        cache: a folder for decoded pixels: later runs map them into memory from files there (uint8; they may be larger
            than the memory) instead of decoding again, until a picture, its name or its date changes; null: no cache.
    """

    name_identifies_images = False

    def __init__(self, *args: Any, cache: str | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.cache = cache

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        folder = self._training_or_test_folder
        if not folder.is_dir():
            return ()
        folders = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        return tuple(sorted(path.name for path in folders if _picture_files(path)))

    @cached_property
    def native_channels(self) -> int:  # type: ignore[override]
        for file in _picture_files(self._training_or_test_folder):
            try:
                with _open(file) as picture:
                    if picture.mode not in ("1", "L", "LA", "I", "F") and not picture.mode.startswith("I;16"):
                        return 3
            except Exception:
                continue  # load_train and load_test report files that cannot be read
        return 1

    def load_train(self) -> Images:
        files, labels = self._labelled("train")
        if self._splits_itself:
            _, train = self._split_by_seed(labels)
            files, labels = [files[index] for index in train], labels[train]
        return self._read(files, labels)

    def load_holdout(self) -> Images | None:
        return self._read(*self._labelled("val")) if (self.root / "val").is_dir() else None

    def load_test(self) -> Images:
        files, labels = self._labelled("test")
        if self._splits_itself:
            test, _ = self._split_by_seed(labels)
            files, labels = [files[index] for index in test], labels[test]
        return self._read(files, labels)

    def load_predict(self) -> Images:
        files = [self.root] if self.root.is_file() else _picture_files(self.root)
        if not files:
            raise DataNotFoundError(f"ImageFolder found no pictures: looked for {_ENDINGS} below {self.root}.")
        return self._read(files, torch.full((len(files),), -1), may_be_empty=True)

    def load_ood(self) -> Images:
        return self.load_predict()  # all pictures, labelled or not: out-of-distribution scores need no labels

    def predict_names(self) -> list[str]:
        return [str(file) for file in self._files_read]

    def prepare_like(self, description: dict[str, Any], labelled: bool = True) -> None:
        # A folder of test pictures may lack some classes; labels must be the class numbers of the checkpoint.
        if labelled and set(self.class_names) <= set(description["class_names"]):
            self.class_names = tuple(description["class_names"])
        super().prepare_like(description, labelled)

    @property
    def splits_test_by_seed(self) -> bool:  # type: ignore[override]
        return self._splits_itself

    @property
    def _splits_itself(self) -> bool:
        """Whether this class makes the test split, because the user has made no train/ or test/ folder."""
        return not any((self.root / part).is_dir() for part in ("train", "test"))

    def _split_by_seed(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the test pictures and of the others."""
        return stratified_split(labels, 0.2, self.seed)

    def _folder(self, part: str) -> Path:
        return self.root if self._splits_itself else self.root / part

    @property
    def _training_or_test_folder(self) -> Path:
        """The training folder or, where there is none, the test folder, which has the same class names."""
        train = self._folder("train")
        return train if train.is_dir() else self._folder("test")

    def _labelled(self, part: str) -> tuple[list[Path], Tensor]:
        """The picture files of train, val or test, and their labels ``(files,)``."""
        folder = self._folder(part)
        files, labels = [], []
        for label, name in enumerate(self.class_names):
            of_class = _picture_files(folder / name)
            files += of_class
            labels += [label] * len(of_class)
        if not files:
            raise DataNotFoundError(
                f"ImageFolder found no {part} pictures: looked for {_ENDINGS} in {folder / 'CLASS'}, with one folder "
                "for each class. Name the folder that holds them with --data.root."
            )
        return files, torch.tensor(labels)

    def _read(self, files: list[Path], labels: Tensor, may_be_empty: bool = False) -> Images:
        if self.image_size is None:
            raise ValueError("image_size must be given for ImageFolder, whose pictures have no one size, such as 32.")
        shape = (self.in_channels, self.image_size, self.image_size)
        if self.cache is None:
            decoded = list(self._decoded(files, shape))
            readable = [index for index, picture in enumerate(decoded) if picture is not None]
            pixels = torch.from_numpy(np.array([decoded[index] for index in readable], np.uint8).reshape(-1, *shape))
            images = Images(pixels, labels[readable])
        else:
            pixels, readable = self._from_cache(Path(self.cache), files, shape)
            images = Images(pixels, labels[readable], torch.arange(len(readable)))
        if self.unreadable:
            file, reason = next(iter(self.unreadable.items()))
            warnings.warn(
                f"{len(self.unreadable)} of the pictures cannot be read and are left out, such as {file}: {reason}",
                stacklevel=2,
            )
        self._files_read = [files[index] for index in readable]
        if not readable and not may_be_empty:
            raise DataNotFoundError(f"none of the {len(files)} pictures below {self.root} can be read.")
        return images

    def _decoded(self, files: list[Path], shape: tuple[int, int, int]) -> Iterator[np.ndarray | None]:
        """The pixels of each file, uint8 ``shape``, or None for a file that cannot be read.

        The reason is put into ``unreadable``.
        """
        mode = "L" if shape[0] == 1 else "RGB"
        for file in files:
            try:
                with _open(file) as picture:
                    upright = ImageOps.exif_transpose(_with_8_bits(picture)).convert(mode)
                    square = ImageOps.fit(upright, (shape[1], shape[2]), Image.Resampling.BILINEAR)
            except Exception as error:  # a damaged picture can raise nearly anything
                self.unreadable[file] = str(error) or type(error).__name__
                yield None
                continue
            yield np.array(square).reshape(*shape[1:], shape[0]).transpose(2, 0, 1)

    def _from_cache(self, folder: Path, files: list[Path], shape: tuple[int, int, int]) -> tuple[Tensor, list[int]]:
        """The pixels of all readable files, mapped from a cache file, and their indices in ``files``.

        The cache file is written first if there is none for these files, their sizes, dates and ``shape``. It has
        room for every file; the rows of the readable ones come first.
        """
        stats = [(str(file.resolve()), stat.st_size, stat.st_mtime_ns) for file in files for stat in (file.stat(),)]
        key = hashlib.sha256(json.dumps([shape, stats]).encode()).hexdigest()[:32]
        array, record = folder / f"{key}.npy", folder / f"{key}.json"
        with locked(folder / f".{key}.lock"):
            if not record.is_file():  # it is written last, when the array is complete
                require_space(folder, len(files) * math.prod(shape))
                readable: list[int] = []
                with atomic_path(array) as unfinished:
                    rows = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (len(files), *shape))
                    for index, pixels in enumerate(self._decoded(files, shape)):
                        if pixels is not None:
                            rows[len(readable)] = pixels
                            readable.append(index)
                    rows.flush()
                    del rows
                reasons = {str(file): self.unreadable[file] for file in files if file in self.unreadable}
                atomic_write(record, json.dumps({"kept": readable, "unreadable": reasons}).encode())
            recorded = json.loads(record.read_bytes())
            self.unreadable.update({Path(file): reason for file, reason in recorded["unreadable"].items()})
            # Copy-on-write, although nothing writes to it, because torch warns about read-only arrays.
            return torch.from_numpy(np.load(array, mmap_mode="c")), recorded["kept"]


def _open(file: Path) -> Image.Image:
    """The picture of a file, its pixels not read yet; raises where the file has none, several, or too many pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        Image.init()  # registers the readers of all formats; open() does not when formats are given
        picture = Image.open(file, formats=_FORMATS)
    # In MPO files of cameras the first picture is the photograph and the others are previews; in other formats nothing
    # says which of several pictures is meant.
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
        with picture:
            raise ValueError(f"it has {picture.n_frames} pictures or frames, not one")  # type: ignore[attr-defined]
    return picture


def _with_8_bits(picture: Image.Image) -> Image.Image:
    """The picture with its 16-bit levels scaled to 8 bits; Pillow's own conversion would clip them at 255."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers of unknown range; save it with 8 or 16 bits")
    return picture


_ENDINGS = ", ".join(IMG_EXTENSIONS)
# The formats that belong to these file endings. Pillow can read others too, one of them (EPS) by running a program.
_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP")


def _picture_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS and path.is_file())
