"""Functions that draw figures of uncertainty, confusion, numbers, posteriors, pruning and studies with matplotlib."""

from bnn_lightning.reporting.figures.confusion import confusion_matrix
from bnn_lightning.reporting.figures.contact_sheet import contact_sheet
from bnn_lightning.reporting.figures.costs import quality_against_cost
from bnn_lightning.reporting.figures.curves import learning_curves
from bnn_lightning.reporting.figures.labels import as_drawn, names_in_fonts, short
from bnn_lightning.reporting.figures.posteriors import first_layer_filters, posterior_and_prior
from bnn_lightning.reporting.figures.regression import (
    intervals_over_feature,
    predicted_and_true,
    quantile_calibration,
    residuals,
)
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
    "contact_sheet",
    "first_layer_filters",
    "intervals_over_feature",
    "kept_weights",
    "learning_curves",
    "most_and_least_certain",
    "names_in_fonts",
    "posterior_and_prior",
    "predicted_and_true",
    "pruning_curve",
    "quality_against_cost",
    "quantile_calibration",
    "reliability",
    "residuals",
    "risk_coverage_curve",
    "rotated_image",
    "score_histograms",
    "short",
]
