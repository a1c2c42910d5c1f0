"""The figure that shows the images which were chosen to be labelled."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from bnn_lightning.reporting.figures.labels import as_drawn, names_in_fonts, short
from bnn_lightning.reporting.figures.png import save

SHOWN = 96
_COLUMNS = 12
_WIDTH, _HEIGHT, _HEAD = 1.1, 1.48, 0.28  # inches: of an image with its two lines, and of the title


def contact_sheet(
    path: Path, images: Sequence[Tensor], classes: Sequence[str], notes: Sequence[str], title: str
) -> None:
    """Draws images in rows, each below its rank, predicted class and a note; of many the first 96.

    Args:
        path: the PNG to write.
        images: uint8 ``(channels, height, width)`` each, the best first.
        classes: the predicted class of each.
        notes: a few letters below it, such as its score.
        title: of the figure.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    images = images[:SHOWN]
    columns = min(_COLUMNS, max(4, len(images)))
    rows = -(-len(images) // columns)
    width, height = _WIDTH * columns, _HEAD + _HEIGHT * rows
    with names_in_fonts(list(classes[: len(images)])) as names:
        figure = Figure(figsize=(width, height))
        for place, (image, name, note) in enumerate(zip(images, names, notes, strict=False)):
            row, column = divmod(place, columns)
            # By hand, because a layout engine takes seconds for so many axes.
            corner = ((column + 0.04) * _WIDTH / width, 1 - (_HEAD + (row + 1) * _HEIGHT - 0.04) / height)
            axis = figure.add_axes((*corner, 0.92 * _WIDTH / width, 0.92 * _WIDTH / height))
            axis.axis("off")
            pixels = image.permute(1, 2, 0).numpy()
            axis.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
            axis.set_title(f"{place + 1}: {short(name)}\n{note}", fontsize=7, linespacing=1.25, pad=3)
        figure.text(0.04 * _WIDTH / width, 1 - 0.07 / height, as_drawn(title), fontsize=9, va="top")
        save(figure, path)
