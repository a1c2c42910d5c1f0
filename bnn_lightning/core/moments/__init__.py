"""Moments: mean and variance of every activation of a network, propagated once, without a draw."""

from bnn_lightning.core.moments.network import MomentNetwork
from bnn_lightning.core.moments.rules import Moments, MomentsError, Rule, moment_rule

__all__ = ["MomentNetwork", "Moments", "MomentsError", "Rule", "moment_rule"]
