"""PNG files."""

from pathlib import Path

from matplotlib.figure import Figure

from bnn_lightning.files import whole


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG, whole or not at all.

    Raises:
        UnwritableError: when it cannot be written.
    """
    with whole(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120)
