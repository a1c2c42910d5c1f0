"""Export formats: files from which other programs load a network."""

from bnn_lightning.deployment.base import ExportFormat
from bnn_lightning.deployment.pt2 import Pt2, load_dense

__all__ = ["ExportFormat", "Pt2", "load_dense"]
