"""How other programs use what was trained: Predictor for those in Python, export formats for any other."""

from bnn_lightning.deployment.base import ExportFormat
from bnn_lightning.deployment.predictor import Predictor
from bnn_lightning.deployment.pt2 import Pt2, load_dense

__all__ = ["ExportFormat", "Predictor", "Pt2", "load_dense"]
