"""Pages that need no other file and no network: HTML templates, and pictures as text."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor
from torchvision.io import encode_png

from bnn_lightning.files import atomic_write

SMALL = 64
"""Pixels a side: an image of fewer is shown with its pixels as squares."""
# Whatever a user has named, such as classes and files, is escaped.
_TEMPLATES = Environment(
    loader=PackageLoader(__name__, ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Writes the page of a template in this folder.

    Args:
        path: the HTML file.
        template: its name, without an ending.
        **values: that the template asks for.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    page = _TEMPLATES.get_template(f"{template}.html").render(**values)
    atomic_write(path, page.encode(errors="backslashreplace"))


def picture(pixels: Tensor) -> str:
    """The address of an image that holds all of it; uint8 ``(channels, height, width)``."""
    return _address(encode_png(pixels.contiguous().cpu()).numpy().tobytes())


def picture_of(file: Path) -> str:
    """The address of a PNG file that holds all of it."""
    return _address(file.read_bytes())


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
