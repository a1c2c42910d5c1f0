"""Which images to label next, from what samples of a network say about a pool: pure functions of logits."""

from bnn_lightning.acquisition.epig import epig
from bnn_lightning.acquisition.joint import batchbald
from bnn_lightning.acquisition.selection import INFORMATION_RULES, JOINT_RULES, RULES, Acquired, Rule, acquire
from bnn_lightning.acquisition.single import bald, entropy, variation_ratio

__all__ = [
    "INFORMATION_RULES",
    "JOINT_RULES",
    "RULES",
    "Acquired",
    "Rule",
    "acquire",
    "bald",
    "batchbald",
    "entropy",
    "epig",
    "variation_ratio",
]
