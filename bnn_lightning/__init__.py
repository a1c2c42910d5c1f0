"""Bayesian convolutional networks by variational inference, in PyTorch and Lightning."""

from bnn_lightning.classifier import BayesianClassifier
from bnn_lightning.compat import (
    BBB_LRT_Conv2d,
    BBB_LRT_Linear,
    BBBConv2d,
    BBBLinear,
    FlattenLayer,
    ModuleWrapper,
    load_reference_state_dict,
)
from bnn_lightning.layers import BayesianLayer, bayesianize, kl, sampling
from bnn_lightning.methods import BBB, LRT, Method
from bnn_lightning.networks import MLP, AlexNet, LeNet, ThreeConvThreeFC
from bnn_lightning.objective import elbo, variational_loss
from bnn_lightning.predictive import log_predictive, mutual_information, predictive_entropy, sample_logits

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
    "BayesianClassifier",
    "BayesianLayer",
    "FlattenLayer",
    "LeNet",
    "Method",
    "ModuleWrapper",
    "ThreeConvThreeFC",
    "bayesianize",
    "elbo",
    "kl",
    "load_reference_state_dict",
    "log_predictive",
    "mutual_information",
    "predictive_entropy",
    "sample_logits",
    "sampling",
    "variational_loss",
]
