"""Methods: how a weight becomes random and where the noise enters."""

from bnn_lightning.methods.base import Method, Op
from bnn_lightning.methods.gaussian import BBB, LRT, GaussianMethod

__all__ = ["BBB", "LRT", "GaussianMethod", "Method", "Op"]
