"""How a posterior is learnt, with which weight of the KL and which learning rate."""

from bnn_lightning.inference.kl_weights import Blundell, Constant, KLWeight, LinearWarmup, Soenderby, Standard
from bnn_lightning.inference.learning_rates import LinearDecay, LRSchedule, Plateau

__all__ = [
    "Blundell",
    "Constant",
    "KLWeight",
    "LRSchedule",
    "LinearDecay",
    "LinearWarmup",
    "Plateau",
    "Soenderby",
    "Standard",
]
