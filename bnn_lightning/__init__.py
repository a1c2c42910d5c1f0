"""Bayesian convolutional networks by variational inference, in PyTorch and Lightning."""

from bnn_lightning.classifier import BayesianClassifier
from bnn_lightning.layers import BayesianLayer, bayesianize, kl, sampling
from bnn_lightning.methods import BBB, LRT, Method
from bnn_lightning.networks import MLP, AlexNet, LeNet, ThreeConvThreeFC
from bnn_lightning.objective import elbo, variational_loss
from bnn_lightning.predictive import log_predictive, mutual_information, predictive_entropy, sample_logits

__version__ = "0.1.0"
