"""Scores of predicted class probabilities: accuracy, NLL, Brier score, calibration error, selective risk, OOD scores.

Arguments are log-probabilities ``(examples, classes)`` and labels ``(examples,)``; or for each example its confidence,
the probability of the predicted class, and whether that class is the label.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bnn_lightning.likelihoods.categorical.calibration import scaled
from bnn_lightning.likelihoods.categorical.classes import balanced_accuracy, confusion_matrix, macro_f1

BINS = 15
COVERAGES = (80, 90, 95)
OOD_TEMPERATURE = 3.0
"""Temperature of ``tempered_entropy``. Of 1, 1.5, 2, 3, 5 and 10 it separated RenderedLetters from MNIST best, for a
LeNet under LRT (AUROC 0.948; 0.934 at 1)."""


def correct(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Whether the most probable class of each example is the label: ``(examples,)``, bool."""
    return log_probs.argmax(-1) == labels


def log_likelihood(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Log p(label) of each example in nats: ``(examples,)``."""
    return log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def brier_score(log_probs: Tensor, labels: Tensor) -> Tensor:
    """sum_k (p_k - [k is the label])^2 of each example, from 0 to 2: ``(examples,)`` (Brier 1950)."""
    probs = log_probs.exp()
    return probs.square().sum(-1) - 2 * probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1) + 1


def calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    """ECE, the mean gap between confidence and accuracy over 15 bins of equal width (Guo et al. 2017, eq. 3): a scalar.

    Bins are weighted by their numbers of examples.
    """
    from torchmetrics.functional.classification import (
        binary_calibration_error,  # the import takes a second, and only test needs it
    )

    # A confidence of exactly 1 belongs to the last bin; torchmetrics would put it into a bin of its own.
    below_one = confidence.float().clamp(max=1 - 2**-24)
    return binary_calibration_error(below_one, correct.long(), BINS, "l1", validate_args=False)


def adaptive_calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    """The calibration error over 15 bins of equally many examples: a scalar (Nguyen & O'Connor 2015).

    It resolves the last bin of :func:`calibration_error`, which often has most of the examples. Predictions of equal
    confidence count with their mean gap, so that their order does not matter.
    """
    confidence, order = confidence.sort()
    _, group, sizes = torch.unique_consecutive(confidence, return_inverse=True, return_counts=True)
    gaps = (confidence - correct.to(confidence.dtype)[order]).double()
    gaps = (gaps.new_zeros(len(sizes)).index_add_(0, group, gaps) / sizes)[group]
    return torch.stack([bin_gaps.sum().abs() for bin_gaps in gaps.tensor_split(BINS)]).sum() / len(gaps)


def risk_coverage(confidence: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """Coverages 1/n, 2/n, ..., 1, and the error rate of that share of most confident predictions: ``(examples,)`` each.

    Predictions of equal confidence count with their mean error rate, so that their order does not matter.
    """
    confidence, order = confidence.sort(descending=True)
    _, group, sizes = torch.unique_consecutive(confidence, return_inverse=True, return_counts=True)
    wrong = (~correct.bool()).double()[order]
    mean_of_group = torch.zeros(len(sizes), dtype=wrong.dtype).index_add_(0, group, wrong) / sizes
    count = torch.arange(1, len(wrong) + 1, dtype=wrong.dtype)
    return count / len(wrong), mean_of_group[group].cumsum(0) / count


def scores(log_probs: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1, NLL, Brier score, ECE, adaptive ECE, AURC, risk at 80, 90, 95 % coverage.

    AURC, the area under the risk-coverage curve, is the mean of the risk over all coverages (Geifman & El-Yaniv 2017),
    with predictions ordered by confidence.
    """
    log_confidence, predicted = log_probs.max(-1)
    confidence, is_correct = log_confidence.exp(), predicted == labels
    _, risk = risk_coverage(log_confidence, is_correct)
    confusion = confusion_matrix(log_probs, labels)
    metrics = {
        "accuracy": is_correct.float().mean(),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        "nll": (-log_likelihood(log_probs, labels)).mean(),
        "brier": brier_score(log_probs, labels).mean(),
        "ece": calibration_error(confidence, is_correct),
        "adaptive_ece": adaptive_calibration_error(confidence, is_correct),
        "aurc": risk.mean(),
    }
    metrics |= {f"risk_at_{coverage}": risk[round(len(risk) * coverage / 100) - 1] for coverage in COVERAGES}
    return {name: value.item() for name, value in metrics.items()}


def ood_scores(summary: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scores that should be higher for out-of-distribution images than for others: ``(images,)`` each.

    ``entropy``, the predictive entropy; ``tempered_entropy``, the entropy of softmax(log p / 3);
    ``mutual_information``; ``one_minus_max_p``; and ``epistemic``, the trace of the epistemic covariance. A temperature
    above 1 helps detection (Liang et al. 2018, arXiv:1706.02690); it is unrelated to the calibrated temperature.

    Args:
        summary: of the images, see :func:`bnn_lightning.likelihoods.categorical.predictive.summary`.
    """
    log_probs = summary["log_probs"]
    return {
        "entropy": summary["entropy"],
        "tempered_entropy": torch.special.entr(scaled(log_probs, OOD_TEMPERATURE).exp()).sum(-1),
        "mutual_information": summary["mutual_information"],
        "one_minus_max_p": -log_probs.amax(-1).expm1(),
        "epistemic": summary["epistemic"],
    }
