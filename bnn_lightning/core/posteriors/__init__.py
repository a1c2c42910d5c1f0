"""Random tensors: what a weight or a bias becomes under a method, their priors, and the KL divergences between them.

Every posterior is an ``nn.Module`` with ``mean``, ``variance``, ``sample()``, ``kl()`` and ``log_alpha()``.
"""

from bnn_lightning.core.kernels.bounded import bounded
from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.posteriors.additive import Additive
from bnn_lightning.core.posteriors.base import SPREADS, THRESHOLD, Point, Posterior
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
from bnn_lightning.core.priors import LearntScale, Prior, ScaleMixture, gaussian_kl

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
