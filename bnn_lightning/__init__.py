"""Bayesian convolutional networks by variational inference, in PyTorch and Lightning."""

from bnn_lightning.compat import (
    BBB_LRT_Conv2d,
    BBB_LRT_Linear,
    BBBConv2d,
    BBBLinear,
    FlattenLayer,
    ModuleWrapper,
    load_reference_state_dict,
)
from bnn_lightning.core.conversion import bayesianize
from bnn_lightning.core.kernels.memory import keep_freed_memory
from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods import (
    BBB,
    LRT,
    Flipout,
    GaussianS,
    GaussianW,
    HierarchicalA,
    HierarchicalB,
    MCDropout,
    Method,
    Sparse,
    VariationalA,
    VariationalB,
)
from bnn_lightning.core.objective import elbo, variational_loss
from bnn_lightning.core.posteriors import LearntScale, ScaleMixture
from bnn_lightning.core.whole_network import kl, sampling
from bnn_lightning.deployment.pt2 import load_dense
from bnn_lightning.evaluation.sampler import Ensemble, Sampler, sample_logits
from bnn_lightning.likelihoods.categorical.predictive import (
    covariances,
    expected_entropy,
    log_predictive,
    mutual_information,
    predictive_entropy,
    probabilities,
    variances,
)
from bnn_lightning.networks import (
    MLP,
    AlexNet,
    BaseCNN,
    BatchNormMLP,
    CIFARNet,
    LeNet,
    LeNet5Caffe,
    LeNet300100,
    SKNet,
    ThreeConvThreeFC,
    multiply_adds,
)
from bnn_lightning.training.module import BayesianClassifier

__version__ = "0.1.0"

__all__ = [
    "BBB",
    "LRT",
    "MLP",
    "AlexNet",
    "BBBConv2d",
    "BBBLinear",
    "BBB_LRT_Conv2d",
    "BBB_LRT_Linear",
    "BaseCNN",
    "BatchNormMLP",
    "BayesianClassifier",
    "BayesianLayer",
    "CIFARNet",
    "Ensemble",
    "FlattenLayer",
    "Flipout",
    "GaussianS",
    "GaussianW",
    "HierarchicalA",
    "HierarchicalB",
    "LeNet",
    "LeNet5Caffe",
    "LeNet300100",
    "LearntScale",
    "MCDropout",
    "Method",
    "ModuleWrapper",
    "SKNet",
    "Sampler",
    "ScaleMixture",
    "Sparse",
    "ThreeConvThreeFC",
    "VariationalA",
    "VariationalB",
    "bayesianize",
    "covariances",
    "elbo",
    "expected_entropy",
    "keep_freed_memory",
    "kl",
    "load_dense",
    "load_reference_state_dict",
    "log_predictive",
    "multiply_adds",
    "mutual_information",
    "predictive_entropy",
    "probabilities",
    "sample_logits",
    "sampling",
    "variances",
    "variational_loss",
]
