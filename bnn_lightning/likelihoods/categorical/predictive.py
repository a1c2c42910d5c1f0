"""The posterior predictive: probabilities, entropies and covariances from the logits of T samples.

All are pure functions of logits ``(samples, batch, classes)``. Entropies are in nats. Results are at least float32.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn_lightning.core.kernels.elementwise import at_least_float32, float64_where_known

Transform = Literal["softmax", "normalized"]


def log_predictive(logits: Tensor) -> Tensor:
    """The log of the predictive probabilities, log((1/T) sum_t softmax(logits_t)): ``(batch, classes)``."""
    return F.log_softmax(logits, -1, dtype=at_least_float32(logits)).logsumexp(0) - math.log(logits.shape[0])


def predictive_entropy(logits: Tensor) -> Tensor:
    """Total uncertainty of each example in nats, the entropy H(mean_t p_t): ``(batch,)``."""
    return torch.special.entr(log_predictive(logits).exp()).sum(-1)


def expected_entropy(logits: Tensor) -> Tensor:
    """Aleatoric uncertainty of each example in nats, the mean entropy mean_t H(p_t): ``(batch,)``."""
    return torch.special.entr(probabilities(logits)).sum(-1).mean(0)


def mutual_information(logits: Tensor) -> Tensor:
    """Epistemic uncertainty of each example in nats, H(mean_t p_t) - mean_t H(p_t): ``(batch,)``, never negative.

    The mutual information between label and weights. It is 0 when all samples agree, exactly 0 for a single sample.
    Of confident networks both entropies are small and nearly equal, so that the difference is taken in float64.
    """
    dtype = at_least_float32(logits)
    if len(logits) == 1:
        return torch.zeros_like(logits[0, ..., 0], dtype=dtype)
    logits = logits.to(float64_where_known(logits))
    return (predictive_entropy(logits) - expected_entropy(logits)).clamp_min(0).to(dtype)


def probabilities(logits: Tensor, transform: Transform = "softmax") -> Tensor:
    """The class probabilities of each sample: ``(samples, batch, classes)``.

    Args:
        logits: of the samples.
        transform: ``softmax`` is the likelihood with which networks are trained. ``normalized`` is
            softplus(f) / sum_k softplus(f_k) (Shridhar et al. 2018, arXiv:1806.05978, eq. 15). It underestimates the
            confidence (logits of 10 and nine zeros give 0.616 instead of 0.9996), so do not compare its uncertainties
            with those of softmax.

    Raises:
        ValueError: for another transform.
    """
    if transform == "softmax":
        return F.softmax(logits, -1, dtype=at_least_float32(logits))
    if transform == "normalized":
        positive = F.softplus(logits.to(at_least_float32(logits))) + 1e-12  # never 0 / 0
        return positive / positive.sum(-1, keepdim=True)
    raise ValueError(f"transform must be softmax or normalized, got {transform!r}.")


def mean_field_probabilities(mean: Tensor, variance: Tensor) -> Tensor:
    """Approximate E[softmax(f)] for f ~ N(mean, diag variance), as softmax(mean / sqrt(1 + pi variance / 8)).

    Without samples, for graphs of your own; the parts of the uncertainty do not follow from it. The logistic
    function is replaced by the normal distribution function of the same slope at 0 (MacKay 1992, "The evidence
    framework applied to classification networks"), for each class by itself (Lu et al. 2020, arXiv:2006.07584).

    Args:
        mean: of the logits, ``(batch, classes)``.
        variance: likewise.

    Returns:
        ``(batch, classes)``.
    """
    scaled = mean * (1 + math.pi / 8 * variance).rsqrt()
    return F.softmax(scaled, -1, dtype=at_least_float32(mean))


class Uncertainty(NamedTuple):
    """The two parts of the predictive covariance of the one-hot label; their sum is diag(p) - p p^T at the mean p."""

    aleatoric: Tensor
    """mean_t [diag(p_t) - p_t p_t^T]: would remain if the weights were known."""
    epistemic: Tensor
    """mean_t (p_t - p)(p_t - p)^T: would vanish if the weights were known."""


def variances(logits: Tensor, transform: Transform = "softmax") -> Uncertainty:
    """Aleatoric and epistemic variance of each class, the diagonals of :func:`covariances`: ``(batch, classes)`` each.

    Their sums over classes are the traces. Kwon et al. 2020, eq. 4 (softmax); Shridhar et al. 2018, eq. 15
    (normalized).
    """
    probs = probabilities(logits, transform)
    return Uncertainty((probs * (1 - probs)).mean(0), probs.var(0, correction=0))


def covariances(logits: Tensor, transform: Transform = "softmax") -> Uncertainty:
    """Aleatoric and epistemic covariance of the one-hot label of each example: ``(batch, classes, classes)`` each.

    Both are symmetric and positive semi-definite, and their rows sum to 0. For a single sample the epistemic one is 0.
    Kwon et al. 2020, eq. 4 (softmax); Shridhar et al. 2018, eq. 15 (normalized).
    """
    probs = probabilities(logits, transform)
    centred = probs - probs.mean(0)
    outer = torch.einsum("tbi,tbj->bij", probs, probs) / len(probs)
    return Uncertainty(probs.mean(0).diag_embed() - outer, torch.einsum("tbi,tbj->bij", centred, centred) / len(probs))


def summary(logits: Tensor) -> dict[str, Tensor]:
    """Predictive and uncertainties of each image, by the names under which they are reported.

    ``log_probs`` ``(batch, classes)``; ``entropy`` and ``mutual_information`` in nats, ``(batch,)``; ``aleatoric`` and
    ``epistemic``, the traces of :func:`bnn_lightning.covariances` under softmax, ``(batch,)``.
    """
    uncertainty = variances(logits)
    return {
        "log_probs": log_predictive(logits),
        "entropy": predictive_entropy(logits),
        "mutual_information": mutual_information(logits),
        "aleatoric": uncertainty.aleatoric.sum(-1),
        "epistemic": uncertainty.epistemic.sum(-1),
    }
