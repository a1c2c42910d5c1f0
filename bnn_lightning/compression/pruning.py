"""Accuracy and NLL of a network after removing shares of its weights."""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_lightning.compression.sparsity import flat, masks_removing, weight_log_alphas
from bnn_lightning.core.conversion import to_plain
from bnn_lightning.core.input_format import in_format_for

PRUNING_SHARES = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)


def pruning_sweep(net: nn.Module, loader: Any, shares: Iterable[float]) -> list[dict[str, float]]:
    """Accuracy and NLL of the mean weights after removing each share of them, those of lowest |mu| / sigma first.

    Blundell et al. 2015 (arXiv:1505.05424), section 5.1 and table 2.

    Args:
        net: a classifier with random layers.
        loader: batches of images and class labels.
        shares: fractions of all random weights to remove, from 0 to 1.

    Returns:
        for each share a row with ``removed`` (the share), ``kept`` (a number of weights), ``min_signal_to_noise`` (the
        lowest |mu| / sigma of a kept weight), ``accuracy`` and ``nll`` (in nats per example).

    Raises:
        ValueError: when a share is not from 0 to 1, or ``net`` has no random weight.
    """
    # Of a sigma that is all but 0 it is infinite.
    signal_to_noises = flat(weight_log_alphas(net)).sort().values.double().mul(-0.5).exp()
    rows = []
    for share in shares:
        keep = masks_removing(net, share)
        logits, labels = logits_and_labels(to_plain(net, keep), loader)
        kept = sum(int(mask.sum()) for mask in keep.values())
        rows.append(
            {
                "removed": share,
                "kept": kept,
                "min_signal_to_noise": signal_to_noises[kept - 1].item() if kept else math.inf,
                "accuracy": (logits.argmax(-1) == labels).float().mean().item(),
                "nll": F.cross_entropy(logits, labels).item(),
            }
        )
    return rows


def logits_and_labels(net: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits ``(images, classes)`` of ``net`` in eval mode and labels ``(images,)``, for all batches of a loader."""
    net.eval()
    with torch.no_grad():
        batches = [(net(in_format_for(net, images)), labels) for images, labels in loader]
    return torch.cat([logits for logits, _ in batches]), torch.cat([labels for _, labels in batches])
