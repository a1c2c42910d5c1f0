"""How a posterior is learnt: variational inference, schedules of the KL weight, schedules of the learning rate."""

from bnn_lightning.inference.base import Inference, Step, Terms, TrainingFacts
from bnn_lightning.inference.ivon import IVON
from bnn_lightning.inference.kl_weights import Blundell, Constant, KLWeight, LinearWarmup, Soenderby, Standard
from bnn_lightning.inference.learning_rates import Cosine, LinearDecay, LRSchedule, Plateau
from bnn_lightning.inference.natural_gradient import IVONOptimizer
from bnn_lightning.inference.variational import Variational

__all__ = [
    "IVON",
    "Blundell",
    "Constant",
    "Cosine",
    "IVONOptimizer",
    "Inference",
    "KLWeight",
    "LRSchedule",
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
