"""Classification: softmax likelihood, uncertainties, scores, calibration and decisions."""

from bnn_lightning.likelihoods.categorical.likelihood import Categorical

__all__ = ["Categorical"]
