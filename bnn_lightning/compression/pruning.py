"""What removing weights costs, by the share of them that is removed."""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_lightning.compression.sparsity import masks_without, weight_log_alphas
from bnn_lightning.core.conversion import to_plain

PRUNING_SHARES = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)


def pruning_sweep(net: nn.Module, loader: Any, shares: Iterable[float]) -> list[dict[str, float]]:
    """Accuracy and NLL of the mean weights without each share of them, those of lowest |mu| / sigma removed first.

    Blundell et al. 2015 (arXiv:1505.05424), section 5.1 and table 2.
    """
    ranked = torch.cat([values.flatten() for values in weight_log_alphas(net).values()]).sort().values
    rows = []
    for share in shares:
        keep = masks_without(net, share)
        logits, labels = logits_over(to_plain(net, keep), loader)
        kept = sum(int(mask.sum()) for mask in keep.values())
        rows.append(
            {
                "removed": share,
                "kept": kept,
                "min_signal_to_noise": math.exp(-0.5 * ranked[kept - 1].item()) if kept else math.inf,
                "accuracy": (logits.argmax(-1) == labels).float().mean().item(),
                "nll": F.cross_entropy(logits, labels).item(),
            }
        )
    return rows


def logits_over(net: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits ``(images, classes)`` and labels over a whole loader."""
    net.eval()
    with torch.no_grad():
        parts = [(net(images), labels) for images, labels in loader]
    return torch.cat([logits for logits, _ in parts]), torch.cat([labels for _, labels in parts])
