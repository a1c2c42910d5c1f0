"""Likelihoods: what the outputs of a network mean, and what a label is."""

from bnn_lightning.likelihoods.base import Likelihood, Predictive, Uninformed
from bnn_lightning.likelihoods.categorical import Categorical

__all__ = ["Categorical", "Likelihood", "Predictive", "Uninformed"]
