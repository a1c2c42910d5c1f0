"""Functions that draw figures of uncertainty, confusion, posteriors, pruning and studies with matplotlib."""

from bnn_lightning.reporting.figures.confusion import confusion_matrix
from bnn_lightning.reporting.figures.labels import as_drawn, names_in_fonts, short
from bnn_lightning.reporting.figures.posteriors import first_layer_filters, posterior_and_prior
from bnn_lightning.reporting.figures.studies import compare
from bnn_lightning.reporting.figures.uncertainty import (
    class_uncertainty,
    most_and_least_certain,
    reliability,
    risk_coverage_curve,
    rotated_image,
    score_histograms,
)
from bnn_lightning.reporting.figures.weights import kept_weights, pruning_curve

__all__ = [
    "as_drawn",
    "class_uncertainty",
    "compare",
    "confusion_matrix",
    "first_layer_filters",
    "kept_weights",
    "most_and_least_certain",
    "names_in_fonts",
    "posterior_and_prior",
    "pruning_curve",
    "reliability",
    "risk_coverage_curve",
    "rotated_image",
    "score_histograms",
    "short",
]
