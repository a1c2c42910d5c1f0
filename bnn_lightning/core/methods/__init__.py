"""Methods: how a weight becomes random and where the noise enters."""

from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.methods.dropout import GaussianS, GaussianW, MCDropout
from bnn_lightning.core.methods.gaussian import BBB, LRT, Flipout, GaussianMethod
from bnn_lightning.core.methods.variational_dropout import (
    HierarchicalA,
    HierarchicalB,
    Sparse,
    VariationalA,
    VariationalB,
)
from bnn_lightning.core.ops.base import Op

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
