"""A picture made an array of 8-bit pixels, whatever its format, levels, transparency and shape."""

import errno
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

# The formats that belong to the endings. Pillow can read others too, one of them (EPS) by running a program.
_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "DIB", "TIFF", "WEBP", "GIF", "AVIF")
# Where levels of more than 8 bits may end: 1 for floats, else what 8, 10, 12, 14 and 16 bits hold.
_FULL_SCALES = (1, 255, 1023, 4095, 16383, 65535)

Fit = Literal["crop", "pad", "stretch"]
Background = Literal["white", "black"]


class Decoded(NamedTuple):
    """A picture as an array.

    Args:
        pixels: ``(channels, size, size)``, uint8.
        has_frames: whether the file has more pictures or frames than this, its first.
        range: the levels that became 0 and 255, for pictures of more than 8 bits.
    """

    pixels: np.ndarray
    has_frames: bool
    range: tuple[float, float] | None


@dataclass(frozen=True)
class Decoder:
    """Reads pictures: files, and those of Pillow.

    Args:
        channels: 1 (grey) or 3 (RGB).
        size: pixels a side.
        fit: what is done with pictures that are not square.
        background: behind transparent pixels, and beside padded pictures.
    """

    channels: int
    size: int
    fit: Fit = "crop"
    background: Background = "white"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the pixels of a picture."""
        return self.channels, self.size, self.size

    def __call__(self, file: Path | BinaryIO) -> Decoded:
        """Reads a file, or an open one; raises nearly anything for one that is damaged."""
        with open_picture(file) as picture:
            return self.decoded(picture)

    def decoded(self, picture: Image.Image) -> Decoded:
        """The pixels of a picture, which stays as it is; raises nearly anything for one that is damaged."""
        with _pillow_is_quiet():
            has_frames = _has_frames(picture)
            levels, used = _with_8_bits(_upright(picture))
            mode = "L" if self.channels == 1 else "RGB"
            pixels = np.asarray(self._square(_converted(levels, mode, self.background)))
        return Decoded(pixels.reshape(self.size, self.size, self.channels).transpose(2, 0, 1), has_frames, used)

    def _square(self, picture: Image.Image) -> Image.Image:
        size, bilinear = (self.size, self.size), Image.Resampling.BILINEAR
        if self.fit == "crop":
            return ImageOps.fit(picture, size, bilinear)
        if self.fit == "stretch":
            return picture.resize(size, bilinear)
        longer = max(picture.size)
        width, height = (max(1, round(side * self.size / longer)) for side in picture.size)
        padded = Image.new(picture.mode, size, self.background)
        corner = (self.size - width) // 2, (self.size - height) // 2
        padded.paste(picture.resize((width, height), bilinear), corner)
        return padded


@dataclass
class Reading:
    """What became of a list of files, told by their indices in it; rows of pixels are those of ``kept``.

    Args:
        kept: the files that could be read, in order.
        unreadable: the others, with the reason.
        with_frames: those that have more pictures or frames than the first, which was read.
        ranges: the levels that became 0 and 255, for files of more than 8 bits.
        is_lasting: whether the files say it all, and none is missing because the system could not read it just then.
    """

    kept: list[int] = field(default_factory=list)
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    with_frames: list[int] = field(default_factory=list)
    ranges: list[tuple[int, float, float]] = field(default_factory=list)
    is_lasting: bool = True


def read_each(files: Iterable[Path], decoder: Decoder, reading: Reading) -> Iterator[np.ndarray]:
    """The pixels of each file that can be read, ``(channels, size, size)``; ``reading`` notes what became of it."""
    for index, file in enumerate(files):
        try:
            decoded = decoder(file)
        except Exception as error:  # a damaged picture can raise nearly anything
            reading.unreadable.append((index, str(error) or type(error).__name__))
            # Pillow's own OSErrors have no number; a damaged file may send it to a place before its start (EINVAL).
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                reading.is_lasting = False
            continue
        reading.kept.append(index)
        if decoded.has_frames:
            reading.with_frames.append(index)
        if decoded.range is not None:
            reading.ranges.append((index, *decoded.range))
        yield decoded.pixels


def read_into(rows: np.ndarray, files: Iterable[Path], decoder: Decoder) -> Reading:
    """Writes the pixels of all readable files to the first of ``rows``, ``(files or more, channels, size, size)``."""
    reading = Reading()
    for row, pixels in enumerate(read_each(files, decoder, reading)):
        rows[row] = pixels
    return reading


def open_picture(file: Path | BinaryIO) -> Image.Image:
    """The first picture of a file, its pixels not read yet; raises where there is none, or one of too many pixels."""
    with _pillow_is_quiet():
        Image.init()  # registers the readers of all formats; open() does not when formats are given
        return Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN])


_lock, _readers = threading.Lock(), 0
_caught: "warnings.catch_warnings[None]" = warnings.catch_warnings()


def pixels_in(file: Path | BinaryIO) -> int:
    """How many pixels the picture of a file has by its header, from which nothing is decoded; 0 where there is none.

    Where there are more than Pillow takes, one more than those.
    """
    try:
        with open_picture(file) as picture:
            return picture.width * picture.height
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return (Image.MAX_IMAGE_PIXELS or 0) + 1
    except Exception:  # a damaged picture can raise nearly anything; whoever decodes it says what
        return 0


@contextmanager
def _pillow_is_quiet() -> Iterator[None]:
    """Inside the ``with``, Pillow's remarks on odd metadata are not shown, and too many pixels are an error.

    Filters of warnings belong to the process: they are set by the first thread that comes and put back by the last one
    that goes, where each of several threads would put back what another has set.
    """
    global _readers, _caught
    with _lock:
        _readers += 1
        if _readers == 1:
            _caught = warnings.catch_warnings()
            _caught.__enter__()
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _caught.__exit__(None, None, None)


def is_grey(picture: Image.Image) -> bool:
    """Whether a picture that was opened has no colour by its header: a grey mode, or a palette of greys."""
    if picture.mode in ("P", "PA"):
        palette = np.reshape(picture.getpalette("RGB") or [0, 0, 1], (-1, 3))
        return bool((palette == palette[:, :1]).all())
    return picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16")


def _has_frames(picture: Image.Image) -> bool:
    if picture.format == "MPO":  # a camera's photograph with previews
        return False
    try:
        return bool(getattr(picture, "is_animated", False))
    except Exception:  # what comes after the first picture may be damaged
        return False


def _upright(picture: Image.Image) -> Image.Image:
    picture.load()
    try:
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(picture) if turned else picture
    except Exception:  # damaged metadata; the picture itself has been read
        return picture


def _with_8_bits(picture: Image.Image) -> tuple[Image.Image, tuple[float, float] | None]:
    """The picture with 16-bit and 32-bit levels scaled to 8 bits, and the levels that became 0 and 255.

    Pillow's own conversion would clip at 255. Data of 12 bits are often stored in 16, so the scale ends at the lowest
    of 10, 12, 14 and 16 bits that holds the picture's levels.
    """
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return picture, None
    # Products of 16 bits and 8 bits are exact in float32, which takes half the memory.
    levels = np.asarray(picture).astype(np.float32 if picture.mode.startswith("I;16") else np.float64)
    finite = levels[np.isfinite(levels)]
    if not finite.size:
        raise ValueError("none of its pixels is a finite number")
    low, high = min(0.0, finite.min()), finite.max()
    if low == 0:
        scales = _FULL_SCALES if picture.mode == "F" else _FULL_SCALES[1:]
        high = 65535 if picture.format == "PPM" else next((full for full in scales if full >= high), high)
    scaled = np.nan_to_num((levels - low) * 255 / ((high - low) or 1), nan=0, posinf=255, neginf=0).clip(0, 255)
    grey = Image.fromarray(scaled.astype(np.uint8))
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    return grey, (float(low), float(high))


def _converted(picture: Image.Image, mode: str, background: Background) -> Image.Image:
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        ground = Image.new("RGBA", picture.size, background)
        picture = Image.alpha_composite(ground, picture.convert("RGBA"))
    if picture.mode == "LAB":  # Pillow knows no way from it to grey
        picture = picture.convert("RGB")
    return picture.convert(mode)
