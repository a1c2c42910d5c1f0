"""NotMNIST: letters A to J from many fonts; and RenderedLetters, a substitute drawn from matplotlib's fonts."""

import gzip
import io
import re
import tarfile
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from torchvision.datasets.utils import download_url

from bnn_lightning.data.base import ImageData
from bnn_lightning.data.downloads import fetch
from bnn_lightning.data.idx import read_labelled
from bnn_lightning.data.loader import Images
from bnn_lightning.data.source import DataNotFoundError
from bnn_lightning.data.splits import stratified_split

_URL = "http://yaroslavvb.com/upload/notMNIST/notMNIST_small.tar.gz"
_MAX_BYTES = 100_000  # limit for one PNG file of 28x28 pixels; the real files have a few hundred bytes


class NotMNIST(ImageData):
    """Letters A-J from many fonts, 28x28 grey (Bulatov 2011), read from ``root/notMNIST``.

    The folder holds IDX files in MNIST's format or, if there are none, the original archive ``notMNIST_small.tar.gz``
    (any ``notMNIST_small*.tar.gz`` with PNG files LETTER/NAME.png), which is downloaded if it is missing too. The
    archive is read without unpacking it; pictures that cannot be read are left out and counted. The data set comes
    without a test set: exact duplicates are removed, then a seeded, stratified fifth becomes the test set. As an
    out-of-distribution set (``ood``) all of it is used.
    """

    splits_test_by_seed = True
    class_names = tuple("ABCDEFGHIJ")
    native_size = 28

    def load_train(self) -> Images:
        return self._split(self._load())[1]

    def load_test(self) -> Images:
        return self._split(self._load())[0]

    def load_ood(self) -> Images:
        return self._load()

    def _load(self) -> Images:
        folders = (self.root / "notMNIST", self.root / "notMNIST" / "raw", self.root / "NotMNIST" / "raw")
        names = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
        for folder in folders:
            for suffix in ("", ".gz"):
                paths = [folder / f"{name}{suffix}" for name in names]
                if all(path.is_file() for path in paths):
                    return _without_duplicates(read_labelled(paths[0], paths[1], self.native_size, self.num_classes))
        archives = sorted(folders[0].glob("notMNIST_small*.tar.gz"))
        archive = archives[0] if archives else self._download(folders[0], names)
        images, self.unreadable = read_letters(archive)
        if self.unreadable:
            note = f"{len(self.unreadable)} unreadable files of {archive.name} left out"
            warnings.warn(f"{note}, such as {next(iter(self.unreadable))}.", stacklevel=2)
            self.notes = list(dict.fromkeys([*self.notes, note]))
        return _without_duplicates(images)

    @staticmethod
    def _download(folder: Path, names: tuple[str, str]) -> Path:
        archive = folder / Path(_URL).name
        try:
            fetch(folder, "NotMNIST", archive.is_file, lambda into: download_url(_URL, into))
        except (OSError, RuntimeError) as error:
            raise DataNotFoundError(
                f"NotMNIST was not found: looked for notMNIST_small*.tar.gz, or {names[0]}[.gz] and {names[1]}[.gz], "
                f"in {folder}, and downloading failed ({str(error).rstrip('.')}). Put the files there, or name their "
                "folder with --data.root or BNN_DATA; RenderedLetters needs no files."
            ) from None
        return archive

    def _split(self, images: Images) -> tuple[Images, Images]:
        test, train = stratified_split(images.labels, 0.2, self.seed)
        return images[test], images[train]


def read_letters(archive: Path) -> tuple[Images, dict[Path, str]]:
    """Reads the 28x28 pictures LETTER/NAME.png from a .tar.gz archive without unpacking it to the disk.

    Returns:
        The readable pictures, sorted by name, and the reason for each one that cannot be read.

    Raises:
        ValueError: when the file is not a complete .tar.gz archive, has no such pictures, or has a member that would be
            dangerous to unpack (a link, a device, a path that leaves the folder).
    """
    pixels, labels, unreadable = {}, {}, {}
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as members:
            for member in members:
                parts = Path(member.name).parts
                if member.isdir():
                    continue
                if not member.isfile() or Path(member.name).is_absolute() or ".." in parts:
                    raise ValueError(f"{archive} holds {member.name}, a link, a device or a path out of its folder.")
                if not re.fullmatch(r"(.*/)?[A-J]/[^/]+\.png", member.name) or parts[-1].startswith("._"):
                    continue
                if member.size > _MAX_BYTES:
                    unreadable[Path(member.name)] = f"it has {member.size:,} bytes"
                    continue
                file: Any = members.extractfile(member)
                content = file.read()
                try:
                    pixels[member.name] = _read_png(content)
                    labels[member.name] = ord(parts[-2]) - ord("A")
                except UnidentifiedImageError:
                    unreadable[Path(member.name)] = "it is no PNG picture"
                except Exception as error:  # a damaged picture can raise nearly anything
                    unreadable[Path(member.name)] = str(error) or type(error).__name__
            # tarfile takes a damaged header for the end of the archive, but after a real end there are only zeros.
            # Reading on to the end of the file also makes gzip verify its checksum.
            while rest := stream.read(2**20):
                if rest.count(0) != len(rest):
                    raise tarfile.ReadError(f"damaged after {len(pixels)} pictures")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{archive} is not a whole .tar.gz archive ({error}); fetch it again.") from None
    if not pixels:
        raise ValueError(f"{archive} must hold pictures A/NAME.png to J/NAME.png, got none that can be read.")
    names = sorted(pixels)
    stacked = torch.from_numpy(np.stack([pixels[name] for name in names])).unsqueeze(1)
    return Images(stacked, torch.tensor([labels[name] for name in names])), unreadable


def _read_png(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        if picture.size != (28, 28):
            raise ValueError(f"it has {picture.size[0]}x{picture.size[1]} pixels, not 28x28")
        return np.array(picture.convert("L"))


def _without_duplicates(images: Images) -> Images:
    _, first_index = np.unique(images.pixels.flatten(1).numpy(), axis=0, return_index=True)
    return images[torch.from_numpy(np.sort(first_index))]


class RenderedLetters(ImageData):
    """Letters A-J drawn with the fonts that matplotlib ships: out-of-distribution images without a download.

    White on black, 28x28, eight slightly rotated, scaled and shifted versions of each letter of each font, always the
    same. They vary less than notMNIST and are easier to tell from digits: results are not comparable with those on it.
    """

    splits_test_by_seed = True
    class_names = tuple("ABCDEFGHIJ")
    native_size = 28
    variants = 8

    def load_train(self) -> Images:
        return self._split()[1]

    def load_test(self) -> Images:
        return self._split()[0]

    def load_ood(self) -> Images:
        return self._rendered()

    def _split(self) -> tuple[Images, Images]:
        images = self._rendered()
        test, train = stratified_split(images.labels, 0.2, self.seed)
        return images[test], images[train]

    def _rendered(self) -> Images:
        note = "letters rendered from fonts, not notMNIST"
        self.notes = list(dict.fromkeys([*self.notes, note]))
        generator = np.random.default_rng(0)
        pixels, labels = [], []
        for path in letter_fonts():
            font = ImageFont.truetype(str(path), 88)
            for label, letter in enumerate(self.class_names):
                for _ in range(self.variants):
                    pixels.append(_rendered_letter(letter, font, generator))
                    labels.append(label)
        return Images(torch.from_numpy(np.stack(pixels)).unsqueeze(1), torch.tensor(labels))


def letter_fonts() -> list[Path]:
    """The font files of matplotlib in which letters look like letters, sorted by path."""
    package = find_spec("matplotlib")  # finds the folder without importing the package
    folders = [] if package is None else list(package.submodule_search_locations or [])
    files = sorted(file for folder in folders for file in Path(folder, "mpl-data", "fonts", "ttf").glob("*.ttf"))
    # Fonts of mathematical symbols have other signs, or none, at the codes of letters.
    symbols = re.compile("cm(sy|ex|mi)|STIX(NonUni|Siz)|DejaVu(Sans|Serif)Display|LastResort")
    return [file for file in files if not symbols.match(file.name)]


def _rendered_letter(letter: str, font: ImageFont.FreeTypeFont, generator: np.random.Generator) -> np.ndarray:
    """A letter, randomly rotated, scaled and shifted: uint8 ``(28, 28)``; drawn at four times that size."""
    canvas = Image.new("L", (112, 112))
    ImageDraw.Draw(canvas).text((56, 56), letter, fill=255, font=font, anchor="mm")
    angle, scale = generator.uniform(-12, 12), generator.uniform(0.85, 1.1)
    shift = generator.uniform(-5, 5, 2)
    cos, sin = np.cos(np.radians(angle)) / scale, np.sin(np.radians(angle)) / scale
    centre = 56 + shift
    matrix = (cos, sin, 56 - cos * centre[0] - sin * centre[1], -sin, cos, 56 + sin * centre[0] - cos * centre[1])
    transformed = canvas.transform(canvas.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.array(transformed.resize((28, 28), Image.Resampling.BOX))
