"""How a posterior is learnt: Variational, IVON, VBLL, SWAG and Laplace; schedules of KL weight and learning rate."""

from bnn_lightning.inference.base import Inference, Step, Terms, TrainingFacts
from bnn_lightning.inference.gradient_descent import GradientDescent
from bnn_lightning.inference.ivon import IVON
from bnn_lightning.inference.kl_weights import Blundell, Constant, KLWeight, LinearWarmup, Soenderby, Standard
from bnn_lightning.inference.laplace import Laplace
from bnn_lightning.inference.learning_rates import Cosine, LinearDecay, LRSchedule, Plateau
from bnn_lightning.inference.natural_gradient import IVONOptimizer
from bnn_lightning.inference.swag import SWAG
from bnn_lightning.inference.variational import Variational
from bnn_lightning.inference.vbll import VBLL

__all__ = [
    "IVON",
    "SWAG",
    "VBLL",
    "Blundell",
    "Constant",
    "Cosine",
    "GradientDescent",
    "IVONOptimizer",
    "Inference",
    "KLWeight",
    "LRSchedule",
    "Laplace",
    "LinearDecay",
    "LinearWarmup",
    "Plateau",
    "Soenderby",
    "Standard",
    "Step",
    "Terms",
    "TrainingFacts",
    "Variational",
]
