"""A page of the images that were chosen to be labelled and why, in one HTML file that needs no other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bnn_lightning.reporting.pages import SMALL, picture, write_page


def write_contact_sheet(
    path: Path, images: Sequence[Tensor], rows: Sequence[Mapping[str, Any]], title: str, about: str
) -> None:
    """Writes the page.

    Args:
        path: the HTML file.
        images: uint8 ``(channels, height, width)`` each.
        rows: what is known of each: ``rank``, ``file``, ``predicted``, ``confidence``, ``reason``.
        title: of the page.
        about: a sentence below it.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    items = [
        {name: row[name] for name in ("rank", "file", "predicted", "reason")}
        | {"confidence": f"{row['confidence']:.0%}", "picture": picture(image), "small": image.shape[-1] < SMALL}
        for image, row in zip(images, rows, strict=True)
    ]
    write_page(path, "contact_sheet", title=title, about=about, items=items)
