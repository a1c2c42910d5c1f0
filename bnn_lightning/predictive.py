"""The posterior predictive: T weight samples turned into probabilities and uncertainty. Pure functions of logits.

Shapes: logits of T samples are ``(samples, batch, classes)``. Entropies are in nats.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sample_logits(net: nn.Module, x: Tensor, samples: int) -> Tensor:
    """Logits ``(samples, batch, classes)`` of ``samples`` forward passes without gradients, each with noise of its own.

    The network is in eval mode meanwhile, so batch norm statistics are used and not touched; afterwards every module
    is in the mode it was in.
    """
    if samples < 1:
        raise ValueError(f"samples must be 1 or more, got {samples}.")
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            return torch.stack([net(x) for _ in range(samples)])
    finally:
        for module, training in modes:
            module.training = training


def log_predictive(logits: Tensor) -> Tensor:
    """Log of the predictive probabilities, log (1/T) sum_t softmax(logits_t): ``(batch, classes)``, float32 or more."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return F.log_softmax(logits, -1, dtype=dtype).logsumexp(0) - math.log(logits.shape[0])


def predictive_entropy(logits: Tensor) -> Tensor:
    """Total uncertainty H(mean_t p_t) of each example: ``(batch,)``."""
    return torch.special.entr(log_predictive(logits).exp()).sum(-1)


def mutual_information(logits: Tensor) -> Tensor:
    """Epistemic uncertainty of each example, H(mean_t p_t) - mean_t H(p_t): ``(batch,)``, never negative.

    Zero when all samples agree, so zero for one sample and for mean weights.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    expected = torch.special.entr(F.softmax(logits, -1, dtype=dtype)).sum(-1).mean(0)
    return (predictive_entropy(logits) - expected).clamp_min(0)
