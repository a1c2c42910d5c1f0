"""Methods: how a weight becomes random and where the noise enters."""

from bnn_lightning.methods.base import Method, Op
from bnn_lightning.methods.dropout import GaussianS, GaussianW, MCDropout
from bnn_lightning.methods.gaussian import BBB, LRT, Flipout, GaussianMethod
from bnn_lightning.methods.variational_dropout import HierarchicalA, HierarchicalB, Sparse, VariationalA, VariationalB

__all__ = [
    "BBB",
    "LRT",
    "Flipout",
    "GaussianMethod",
    "GaussianS",
    "GaussianW",
    "HierarchicalA",
    "HierarchicalB",
    "MCDropout",
    "Method",
    "Op",
    "Sparse",
    "VariationalA",
    "VariationalB",
]
