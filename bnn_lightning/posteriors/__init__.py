"""Random tensors: what a weight or a bias becomes under a method, their priors, and the KL divergences between them.

Every posterior is an ``nn.Module`` with ``mean``, ``variance``, ``sample()``, ``kl()`` and ``log_alpha()``.
"""

from bnn_lightning.posteriors.base import SPREADS, THRESHOLD, Point, Posterior, at_least_float32
from bnn_lightning.posteriors.dropout import (
    HIERARCHICAL,
    KINGMA,
    LOG_UNIFORM,
    Additive,
    Divergence,
    FixedAlpha,
    LearntAlpha,
    Multiplicative,
    Parametrisation,
    bounded,
    hierarchical_kl,
    kingma_kl,
    log_uniform_kl,
    unchanged,
)
from bnn_lightning.posteriors.gaussian import Gaussian, LearntScale, Prior, ScaleMixture, gaussian_kl

__all__ = [
    "HIERARCHICAL",
    "KINGMA",
    "LOG_UNIFORM",
    "SPREADS",
    "THRESHOLD",
    "Additive",
    "Divergence",
    "FixedAlpha",
    "Gaussian",
    "LearntAlpha",
    "LearntScale",
    "Multiplicative",
    "Parametrisation",
    "Point",
    "Posterior",
    "Prior",
    "ScaleMixture",
    "at_least_float32",
    "bounded",
    "gaussian_kl",
    "hierarchical_kl",
    "kingma_kl",
    "log_uniform_kl",
    "unchanged",
]
