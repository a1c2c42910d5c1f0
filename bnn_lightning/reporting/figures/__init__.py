"""Figures, as PNG files."""

from bnn_lightning.reporting.figures.posteriors import first_layer, posterior_and_prior
from bnn_lightning.reporting.figures.studies import compare
from bnn_lightning.reporting.figures.uncertainty import (
    by_class,
    extremes,
    reliability,
    risk_coverage_curve,
    score_histograms,
    turning,
)
from bnn_lightning.reporting.figures.weights import kept_weights, pruning_curve

__all__ = [
    "by_class",
    "compare",
    "extremes",
    "first_layer",
    "kept_weights",
    "posterior_and_prior",
    "pruning_curve",
    "reliability",
    "risk_coverage_curve",
    "score_histograms",
    "turning",
]
