"""How other programs use what was trained: Predictor for those in Python, export formats for any other."""

from bnn_lightning.deployment.base import ExportFormat
from bnn_lightning.deployment.metadata import export_graph
from bnn_lightning.deployment.onnx import Onnx
from bnn_lightning.deployment.predictor import Predictor
from bnn_lightning.deployment.pt2 import Pt2, load_dense

__all__ = ["ExportFormat", "Onnx", "Predictor", "Pt2", "export_graph", "load_dense"]
