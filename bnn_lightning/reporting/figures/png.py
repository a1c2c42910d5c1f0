"""Saves figures as PNG files."""

from pathlib import Path

from matplotlib.figure import Figure

from bnn_lightning.files import atomic_path


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG file, atomically.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    with atomic_path(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120)
