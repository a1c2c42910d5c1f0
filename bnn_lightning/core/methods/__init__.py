"""Methods: how weights become random, and where the noise enters a layer."""

from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.methods.dropout import GaussianS, GaussianW, MCDropout
from bnn_lightning.core.methods.gaussian import BBB, LRT, Flipout, GaussianMethod
from bnn_lightning.core.methods.rank1 import Rank1
from bnn_lightning.core.methods.together import DrawnTogether
from bnn_lightning.core.methods.variational_dropout import (
    DropoutOnInputs,
    DropoutOnWeights,
    HierarchicalA,
    HierarchicalB,
    Sparse,
    VariationalA,
    VariationalB,
)
from bnn_lightning.core.settings import check_words

__all__ = [
    "BBB",
    "LRT",
    "DrawnTogether",
    "DropoutOnInputs",
    "DropoutOnWeights",
    "Flipout",
    "GaussianMethod",
    "GaussianS",
    "GaussianW",
    "HierarchicalA",
    "HierarchicalB",
    "MCDropout",
    "Method",
    "Rank1",
    "Sparse",
    "VariationalA",
    "VariationalB",
    "check_words",
]
