"""Regression: normal and Student-t likelihoods, mixtures, scores, calibration, intervals and decisions."""

from bnn_lightning.likelihoods.regression.likelihood import Gaussian, Regression, StudentT
from bnn_lightning.likelihoods.regression.units import Units

__all__ = ["Gaussian", "Regression", "StudentT", "Units"]
