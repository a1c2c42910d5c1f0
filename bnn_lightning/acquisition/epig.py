"""EPIG, the expected information that an image's label gives about the labels of other images."""

import torch
from torch import Tensor

from bnn_lightning.acquisition.chunks import check_logits, over_pool


def epig(predictive: Tensor, targets: Tensor) -> Tensor:
    """Expected predictive information gain in nats, mean_m MI(y; y_m): ``(pool,)``, float64, never negative.

    Bickford Smith et al. 2023 (arXiv:2304.08151, eq. 5 and section 3.2). The joint of an image's label y and of a
    target's y_m is p(y, y_m) = mean_t p_t(y) p_t(y_m), so that sample t must be one network for both. Unlike BALD it
    does not count what could be learnt about images that nobody asks about.

    Args:
        predictive: logits ``(samples, pool, classes)``.
        targets: logits ``(samples, targets, classes)`` of images such as those that will be predicted, by the same
            weight draws.

    Raises:
        ValueError: when one has another shape, is not finite, or there is no target.
    """
    check_logits(predictive, "predictive")
    check_logits(targets, "targets")
    if len(targets) != len(predictive):
        raise ValueError(
            f"targets must have the {len(predictive)} samples of predictive, by the same weights, got {len(targets)}."
        )
    if targets.shape[1] == 0:
        raise ValueError("targets must be one image or more, got none.")
    of_targets = targets.double().softmax(-1)
    target_entropy = torch.special.entr(of_targets.mean(0)).sum(-1).mean()
    given = of_targets.flatten(1) / len(targets)  # (samples, targets x classes)

    def score(logits: Tensor) -> Tensor:
        probs = logits.softmax(-1)
        joint = probs.flatten(1).T @ given  # (images x classes, targets x classes)
        joint_entropy = torch.special.entr(joint).sum(-1).view(-1, logits.shape[2]).sum(-1) / targets.shape[1]
        own_entropy = torch.special.entr(probs.mean(0)).sum(-1)
        return (own_entropy + target_entropy - joint_entropy).clamp_min(0)

    return over_pool(score, predictive, predictive.shape[2] * given.shape[1])
