"""Regression: normal and Student-t likelihoods, mixtures, scores, calibration, intervals and decisions."""

from bnn_lightning.likelihoods.regression.gaussian import Gaussian
from bnn_lightning.likelihoods.regression.likelihood import Regression
from bnn_lightning.likelihoods.regression.student_t import StudentT
from bnn_lightning.likelihoods.regression.units import Units

__all__ = ["Gaussian", "Regression", "StudentT", "Units"]
