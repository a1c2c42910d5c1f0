"""The figure that shows the images which were chosen to be labelled."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from bnn_lightning.reporting.figures.labels import as_drawn, names_in_fonts, short
from bnn_lightning.reporting.figures.png import save

SHOWN = 96
_COLUMNS = 12


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
    with names_in_fonts(list(classes[: len(images)])) as names:
        figure = Figure(figsize=(1.05 * columns, 0.45 + 1.42 * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis in axes:
            axis.axis("off")
        for rank, (axis, image, name, note) in enumerate(zip(axes, images, names, notes, strict=False), start=1):
            pixels = image.permute(1, 2, 0).numpy()
            axis.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
            axis.set_title(f"{rank}: {short(name)}\n{note}", fontsize=7, linespacing=1.25, pad=3)
        figure.suptitle(as_drawn(title), fontsize=9, x=0.01, ha="left")
        save(figure, path)
