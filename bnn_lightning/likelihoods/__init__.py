"""Likelihoods: what the outputs of a network mean, and what a label is."""

from bnn_lightning.likelihoods.base import Likelihood, Predictive, Uninformed
from bnn_lightning.likelihoods.categorical import Categorical
from bnn_lightning.likelihoods.regression import Gaussian as GaussianLikelihood  # Gaussian alone is the posterior
from bnn_lightning.likelihoods.regression import StudentT, Units

__all__ = ["Categorical", "GaussianLikelihood", "Likelihood", "Predictive", "StudentT", "Uninformed", "Units"]
