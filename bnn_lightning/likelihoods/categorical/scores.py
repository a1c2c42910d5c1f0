"""Scores of predicted class probabilities: accuracy, proper scores, calibration, selective risk.

All are functions of log-probabilities ``(examples, classes)`` and labels ``(examples,)``, or of one number for each.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bnn_lightning.likelihoods.categorical.calibration import scaled

BINS = 15
COVERAGES = (80, 90, 95)
OOD_TEMPERATURE = 3.0
"""Temperature of the tempered entropy. Of 1, 1.5, 2, 3, 5 and 10 it told RenderedLetters from MNIST best, for a LeNet
under LRT (AUROC 0.948; 0.934 at 1)."""


def correct(log_probs: Tensor, labels: Tensor) -> Tensor:
    """1 where the most probable class is the label."""
    return log_probs.argmax(-1) == labels


def log_likelihood(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Log p(label), in nats."""
    return log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def brier_score(log_probs: Tensor, labels: Tensor) -> Tensor:
    """sum_k (p_k - [k is the label])^2, from 0 to 2 (Brier 1950)."""
    probs = log_probs.exp()
    return probs.square().sum(-1) - 2 * probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1) + 1


def calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    """ECE: the gap between confidence and accuracy in 15 bins of equal width (Guo et al. 2017, eq. 3)."""
    from torchmetrics.functional.classification import (
        binary_calibration_error,  # takes a second, and only test needs it
    )

    # A confidence of exactly 1 belongs to the last bin; torchmetrics would give it one of its own.
    below_one = confidence.float().clamp(max=1 - 2**-24)
    return binary_calibration_error(below_one, correct.long(), BINS, "l1", validate_args=False)


def adaptive_calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    """The same in 15 bins with equally many images (Nguyen & O'Connor 2015), which sees into a crowded last bin."""
    gaps = (confidence - correct.to(confidence.dtype))[confidence.argsort()]
    return torch.stack([part.sum().abs() for part in gaps.tensor_split(BINS)]).sum() / len(gaps)


def risk_coverage(confidence: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage 1/n ... 1 and the error rate among as many of the most confident predictions; ties count their mean."""
    confidence, order = confidence.sort(descending=True)
    _, group, sizes = torch.unique_consecutive(confidence, return_inverse=True, return_counts=True)
    wrong = (~correct.bool()).double()[order]
    mean_of_group = torch.zeros(len(sizes), dtype=wrong.dtype).index_add_(0, group, wrong) / sizes
    count = torch.arange(1, len(wrong) + 1, dtype=wrong.dtype)
    return count / len(wrong), mean_of_group[group].cumsum(0) / count


def scores(log_probs: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, NLL, Brier score, ECE, adaptive ECE, AURC and the risk at 80, 90 and 95 % coverage.

    AURC is the mean risk over all coverages (Geifman & El-Yaniv 2017), with the confidence as the order.
    """
    log_confidence, predicted = log_probs.max(-1)
    confidence, right = log_confidence.exp(), predicted == labels
    _, risk = risk_coverage(log_confidence, right)
    metrics = {
        "accuracy": right.float().mean(),
        "nll": (-log_likelihood(log_probs, labels)).mean(),
        "brier": brier_score(log_probs, labels).mean(),
        "ece": calibration_error(confidence, right),
        "adaptive_ece": adaptive_calibration_error(confidence, right),
        "aurc": risk.mean(),
    }
    metrics |= {f"risk_at_{coverage}": risk[round(len(risk) * coverage / 100) - 1] for coverage in COVERAGES}
    return {name: value.item() for name, value in metrics.items()}


def ood_scores(summary: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What images from elsewhere should have more of, one number an image: ``(images,)`` each.

    Predictive entropy; the entropy of softmax(log p / 3), for temperatures above 1 help detection (Liang et al. 2018,
    arXiv:1706.02690) and have nothing to do with the one that calibrates; mutual information; 1 - max p; and the trace
    of the epistemic covariance.
    """
    log_probs = summary["log_probs"]
    return {
        "entropy": summary["entropy"],
        "tempered_entropy": torch.special.entr(scaled(log_probs, OOD_TEMPERATURE).exp()).sum(-1),
        "mutual_information": summary["mutual_information"],
        "one_minus_max_p": -log_probs.amax(-1).expm1(),
        "epistemic": summary["epistemic"],
    }
