"""Random tensors, which replace the weights and biases of layers, with their priors and KL divergences.

Each posterior is an ``nn.Module`` with ``mean``, ``variance``, ``sample()``, ``kl()`` and ``log_alpha()``.
"""

from bnn_lightning.core.posteriors.additive import Additive
from bnn_lightning.core.posteriors.base import LOG_ALPHA_THRESHOLD, Point, Posterior
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
from bnn_lightning.core.posteriors.joint import (
    FactorPart,
    FixedWidth,
    Joint,
    JointPart,
    JointWeight,
    KroneckerPart,
    sample_together,
)
from bnn_lightning.core.posteriors.low_rank import LowRank
from bnn_lightning.core.posteriors.multiplicative import (
    FixedAlpha,
    LearntAlpha,
    Multiplicative,
    Parametrisation,
    identity,
)
from bnn_lightning.core.posteriors.path import PathGaussian
from bnn_lightning.core.posteriors.radial import Radial
from bnn_lightning.core.posteriors.rank1 import Rank1Weight
from bnn_lightning.core.posteriors.with_prior import WithPrior

__all__ = [
    "HIERARCHICAL",
    "KINGMA",
    "LOG_ALPHA_THRESHOLD",
    "LOG_UNIFORM",
    "Additive",
    "Divergence",
    "FactorPart",
    "FixedAlpha",
    "FixedWidth",
    "Gaussian",
    "Joint",
    "JointPart",
    "JointWeight",
    "KroneckerPart",
    "LearntAlpha",
    "LowRank",
    "Multiplicative",
    "Parametrisation",
    "PathGaussian",
    "Point",
    "Posterior",
    "Radial",
    "Rank1Weight",
    "WithPrior",
    "hierarchical_kl",
    "identity",
    "kingma_kl",
    "log_uniform_kl",
    "sample_together",
]
