"""The posterior predictive: T weight samples turned into probabilities and uncertainty. Pure functions of logits.

Shapes: logits of T samples are ``(samples, batch, classes)``. Entropies are in nats.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn_lightning.core.kernels.elementwise import at_least_float32

Transform = Literal["softmax", "normalized"]


def log_predictive(logits: Tensor) -> Tensor:
    """Log of the predictive probabilities, log (1/T) sum_t softmax(logits_t): ``(batch, classes)``, float32 or more."""
    return F.log_softmax(logits, -1, dtype=at_least_float32(logits)).logsumexp(0) - math.log(logits.shape[0])


def predictive_entropy(logits: Tensor) -> Tensor:
    """Total uncertainty H(mean_t p_t) of each example: ``(batch,)``."""
    return torch.special.entr(log_predictive(logits).exp()).sum(-1)


def expected_entropy(logits: Tensor) -> Tensor:
    """Aleatoric uncertainty of each example in nats, mean_t H(p_t): ``(batch,)``."""
    return torch.special.entr(probabilities(logits)).sum(-1).mean(0)


def mutual_information(logits: Tensor) -> Tensor:
    """Epistemic uncertainty of each example, H(mean_t p_t) - mean_t H(p_t): ``(batch,)``, never negative.

    Zero when all samples agree, and exactly so for one sample, such as that of mean weights.
    """
    if len(logits) == 1:
        return torch.zeros_like(logits[0, ..., 0], dtype=at_least_float32(logits))
    return (predictive_entropy(logits) - expected_entropy(logits)).clamp_min(0)


def probabilities(logits: Tensor, transform: Transform = "softmax") -> Tensor:
    """Each sample's probabilities: ``(samples, batch, classes)``, float32 or more.

    ``softmax`` is the likelihood that networks are trained with. ``normalized`` is softplus(f) / sum_k softplus(f_k)
    (Shridhar et al. 2018, arXiv:1806.05978, eq. 15), which is not: it calls a network unsure that is not (logits of 10
    and nine zeros give 0.616 instead of 0.9996), so that numbers of the two never compare.
    """
    if transform == "softmax":
        return F.softmax(logits, -1, dtype=at_least_float32(logits))
    if transform == "normalized":
        positive = F.softplus(logits.to(at_least_float32(logits))) + 1e-12  # where every logit is very negative
        return positive / positive.sum(-1, keepdim=True)
    raise ValueError(f"transform must be softmax or normalized, got {transform!r}.")


class Uncertainty(NamedTuple):
    """The two parts of the predictive covariance of the one-hot label; their sum is diag(p) - p p^T at the mean p."""

    aleatoric: Tensor
    """mean_t [diag(p_t) - p_t p_t^T]: what is left when the weights are known."""
    epistemic: Tensor
    """mean_t (p_t - p)(p_t - p)^T: what knowing the weights would take away."""


def variances(logits: Tensor, transform: Transform = "softmax") -> Uncertainty:
    """The diagonals of :func:`covariances`, one number for each class: ``(batch, classes)``; their sums are the traces.

    Kwon et al. 2020, eq. 4 (softmax); Shridhar et al. 2018, eq. 15 (normalized).
    """
    probs = probabilities(logits, transform)
    return Uncertainty((probs * (1 - probs)).mean(0), probs.var(0, correction=0))


def covariances(logits: Tensor, transform: Transform = "softmax") -> Uncertainty:
    """Aleatoric and epistemic covariance of the label of each example: ``(batch, classes, classes)``.

    Both are symmetric and positive semi-definite, and their rows sum to 0. The epistemic one is 0 for one sample.
    """
    probs = probabilities(logits, transform)
    centred = probs - probs.mean(0)
    outer = torch.einsum("tbi,tbj->bij", probs, probs) / len(probs)
    return Uncertainty(probs.mean(0).diag_embed() - outer, torch.einsum("tbi,tbj->bij", centred, centred) / len(probs))


def summary(logits: Tensor) -> dict[str, Tensor]:
    """All that T samples say about each image, under the names that it is reported by.

    ``log_probs`` ``(batch, classes)``, and for each image ``entropy``, ``mutual_information``, and the traces
    ``aleatoric`` and ``epistemic`` of :func:`covariances` under softmax.
    """
    spread = variances(logits)
    return {
        "log_probs": log_predictive(logits),
        "entropy": predictive_entropy(logits),
        "mutual_information": mutual_information(logits),
        "aleatoric": spread.aleatoric.sum(-1),
        "epistemic": spread.epistemic.sum(-1),
    }
