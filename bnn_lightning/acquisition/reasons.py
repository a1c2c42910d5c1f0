"""Why an image was chosen to be labelled, in plain words, with the numbers of its row in a table."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bnn_lightning.acquisition.selection import Acquired, Rule, best_first
from bnn_lightning.likelihoods.categorical.predictive import log_predictive, mutual_information, predictive_entropy

_AT_ONCE = 4096  # images


def ranked_rows(
    predictive: Tensor, acquired: Acquired, by: Rule, names: Sequence[str], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each image of a pool: those that were chosen in the order of the choice, then the others by score.

    Args:
        predictive: logits ``(samples, pool, classes)``.
        acquired: what was chosen.
        by: the rule it was chosen by.
        names: of the images.
        class_names: of the classes.

    Returns:
        rows with ``file``, ``rank`` from 1, ``chosen`` (yes or no), ``score``, ``joint`` (of ``batchbald``),
        ``predicted``, ``confidence``, ``entropy`` and ``mutual_information`` in nats, and ``reason``.
    """
    others = best_first(acquired.scores, torch.arange(len(names)))
    chosen = set(acquired.images.tolist())
    order = acquired.images.tolist() + [image for image in others.tolist() if image not in chosen]
    facts = [_facts(predictive[:, part]) for part in torch.tensor(order, dtype=torch.int64).split(_AT_ONCE)]
    joint = [] if acquired.joint is None else acquired.joint.tolist()
    weakest = min((acquired.scores[image].item() for image in chosen), default=float("inf"))
    rows = []
    for place, (image, (log_probs, entropy, information)) in enumerate(
        zip(order, (fact for part in facts for fact in part), strict=True)
    ):
        probs, classes = log_probs.exp().topk(2)
        first, second = (class_names[label] for label in classes.tolist())
        row: dict[str, Any] = {
            "file": names[image],
            "rank": place + 1,
            "chosen": "yes" if image in chosen else "no",
            "score": acquired.scores[image].item(),
        }
        if acquired.joint is not None:
            row["joint"] = joint[place] if place < len(joint) else ""
        row |= {
            "predicted": first,
            "confidence": probs[0].item(),
            "entropy": entropy.item(),
            "mutual_information": information.item(),
        }
        score = row["score"]
        if image in chosen:
            gain = joint[place] - joint[place - 1] if 0 < place < len(joint) else None
            row["reason"] = _reason(by, score, gain, (first, second), probs.tolist(), entropy.item())
        elif by == "batchbald" and score >= weakest:
            row["reason"] = f"by itself its label says {score:.3f} nats, but the chosen ones say most of that"
        else:
            row["reason"] = ""
        rows.append(row)
    return rows


def _facts(predictive: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Log probabilities, entropy and mutual information of each image."""
    measured = (log_predictive(predictive), predictive_entropy(predictive), mutual_information(predictive))
    return list(zip(*measured, strict=True))


def _reason(
    by: Rule, score: float, gain: float | None, classes: tuple[str, str], probs: list[float], entropy: float
) -> str:
    if by == "random":
        return "drawn at random"
    if by == "entropy":
        return f"{classes[0]} has {probs[0]:.0%} and {classes[1]} {probs[1]:.0%}: an entropy of {entropy:.2f} nats"
    if by == "variation_ratio":
        return f"no class has more than {probs[0]:.0%}: {classes[0]}, then {classes[1]} with {probs[1]:.0%}"
    if by == "epig":
        return f"its label says {score:.4f} nats about the label of another image, on average"
    if gain is not None:
        return f"its label adds {gain:.3f} nats to those of the images before it ({score:.3f} by itself)"
    return f"the draws disagree between {classes[0]} and {classes[1]}: its label says {score:.3f} nats about them"
