"""A page of the images that were chosen to be labelled and why, in one HTML file that needs no other."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.io import encode_png

from bnn_lightning.files import atomic_write

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1.25rem; color: #222;
       background: #fff; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; }
p { margin: 0 0 1.5rem; color: #555; }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem;
     grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
li { border: 1px solid #ddd; border-radius: 6px; overflow: hidden; display: flex; flex-direction: column; }
img { width: 100%; height: 10rem; object-fit: contain; background: #f3f3f3; image-rendering: auto; }
img.small { image-rendering: pixelated; }
div { padding: .6rem .75rem .75rem; }
b { display: block; }
small { display: block; color: #666; overflow-wrap: anywhere; }
.rank { float: right; color: #888; font-weight: normal; }
.why { color: #333; margin-top: .35rem; }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #e6e6e6; } li { border-color: #383838; } img { background: #222; }
  p, small, .rank { color: #9a9a9a; } .why { color: #ccc; }
}
"""


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
    items = "\n".join(_item(image, row) for image, row in zip(images, rows, strict=True))
    page = (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{html.escape(title)}</h1>\n<p>{html.escape(about)}</p>\n<ol>\n{items}\n</ol>\n"
    )
    atomic_write(path, page.encode(errors="backslashreplace"))


def _item(image: Tensor, row: Mapping[str, Any]) -> str:
    png = base64.b64encode(encode_png(image.contiguous()).numpy().tobytes()).decode()
    small = ' class="small"' if image.shape[-1] < 64 else ""
    name, predicted, reason = (html.escape(str(row[key])) for key in ("file", "predicted", "reason"))
    return (
        f'<li><img{small} alt="{name}" src="data:image/png;base64,{png}"><div>'
        f'<b>{predicted}, {row["confidence"]:.0%} <span class="rank">#{row["rank"]}</span></b>'
        f'<small>{name}</small><small class="why">{reason}</small></div></li>'
    )
