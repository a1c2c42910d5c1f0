"""Random tensors: what a weight or a bias becomes under a method, their priors, and the KL divergences between them.

Every posterior is an ``nn.Module`` with ``mean``, ``variance``, ``sample()``, ``kl()`` and ``log_alpha()``.
"""

from bnn_lightning.core.posteriors.additive import Additive
from bnn_lightning.core.posteriors.base import THRESHOLD, Point, Posterior
from bnn_lightning.core.posteriors.divergences import (
    HIERARCHICAL,
    KINGMA,
    LOG_UNIFORM,
    Divergence,
    hierarchical_kl,
    kingma_kl,
    log_uniform_kl,
)
from bnn_lightning.core.posteriors.gaussian import Gaussian
from bnn_lightning.core.posteriors.multiplicative import (
    FixedAlpha,
    LearntAlpha,
    Multiplicative,
    Parametrisation,
    unchanged,
)
from bnn_lightning.core.priors import LearntScale, Normal, Prior, ScaleMixture

__all__ = [
    "HIERARCHICAL",
    "KINGMA",
    "LOG_UNIFORM",
    "THRESHOLD",
    "Additive",
    "Divergence",
    "FixedAlpha",
    "Gaussian",
    "LearntAlpha",
    "LearntScale",
    "Multiplicative",
    "Normal",
    "Parametrisation",
    "Point",
    "Posterior",
    "Prior",
    "ScaleMixture",
    "hierarchical_kl",
    "kingma_kl",
    "log_uniform_kl",
    "unchanged",
]
