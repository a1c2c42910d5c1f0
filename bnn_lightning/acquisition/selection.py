"""``acquire``: the images of a pool to label next, by the name of a rule."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from bnn_lightning.acquisition.chunks import check_logits
from bnn_lightning.acquisition.epig import epig
from bnn_lightning.acquisition.joint import CONFIGURATIONS, batchbald
from bnn_lightning.acquisition.single import bald, entropy, variation_ratio

Rule = Literal["entropy", "variation_ratio", "bald", "epig", "batchbald", "random"]
"""How images are chosen: by a score of each, greedily by the joint score of the batch (batchbald), or at random."""
RULES: tuple[Rule, ...] = get_args(Rule)
"""All of them."""
JOINT_RULES: tuple[Rule, ...] = ("epig", "batchbald")
"""Rules that look at several images at once, so that sample t must be one network for all of them."""
INFORMATION_RULES: tuple[Rule, ...] = ("bald", *JOINT_RULES)
"""Rules that measure what labels say about the weights: nothing, where there is but one sample of them."""
_SCORES = {"entropy": entropy, "variation_ratio": variation_ratio, "bald": bald, "batchbald": bald}


class Acquired(NamedTuple):
    """What was chosen from a pool."""

    images: Tensor
    """Their indices in the pool, ``(count,)``, int64, the best first."""
    scores: Tensor
    """What the rule says of each image by itself, ``(pool,)``, float64: of ``batchbald`` its BALD, of ``random`` a
    random number."""
    joint: Tensor | None
    """Of ``batchbald``: the mutual information of the weights and the labels of the first 1, 2, ... images, in nats,
    ``(count,)``; None for other rules."""


def acquire(
    predictive: Tensor,
    count: int,
    by: Rule = "batchbald",
    targets: Tensor | None = None,
    seed: int = 0,
    configurations: int = CONFIGURATIONS,
) -> Acquired:
    """Chooses the images of a pool whose labels are worth most.

    Among equal scores the order is random, by ``seed``, because the order of a pool may be that of its classes; where
    all scores are the same, so is the choice. Of a pool smaller than ``count`` all images are chosen.

    Args:
        predictive: logits ``(samples, pool, classes)``. For ``epig`` and ``batchbald`` sample t must be one network for
            all images (:attr:`bnn_lightning.Sampler.is_joint`).
        count: images to choose.
        by: the rule.
        targets: for ``epig``, logits ``(samples, targets, classes)`` of images like those to be predicted later.
        seed: of what is random.
        configurations: of ``batchbald``, see :func:`batchbald`.

    Raises:
        ValueError: when an argument is out of range, or ``by`` measures information with one sample.
    """
    check_logits(predictive, "predictive")
    if by not in RULES:
        raise ValueError(f"by must be one of {', '.join(RULES)}, got {by!r}.")
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}.")
    if by in INFORMATION_RULES and len(predictive) < 2:
        raise ValueError(f"predictive must have two samples or more for {by}, which measures how they differ, got 1.")
    if (targets is not None) != (by == "epig"):
        raise ValueError(f"targets must be given for epig and for no other rule, got {by}.")
    if by == "batchbald":
        index, joint = batchbald(predictive, count, seed, configurations)
        return Acquired(index, bald(predictive), joint)
    shuffled = torch.randperm(predictive.shape[1], generator=torch.Generator().manual_seed(seed))
    if targets is not None:
        scores = epig(predictive, targets)
    elif by == "random":
        scores = torch.empty(len(shuffled), dtype=torch.float64)
        scores[shuffled] = 1 - torch.arange(len(shuffled), dtype=torch.float64) / max(1, len(shuffled))
    else:
        scores = _SCORES[by](predictive)
    return Acquired(best_first(scores, shuffled)[:count], scores, None)


def best_first(scores: Tensor, shuffled: Tensor) -> Tensor:
    """Indices in falling order of scores, among equals in the order of ``shuffled``."""
    return shuffled[scores[shuffled].argsort(descending=True, stable=True)]
