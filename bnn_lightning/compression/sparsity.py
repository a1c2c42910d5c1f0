"""Which weights carry no signal: masks by log alpha or by share, sparsity by layer, compression ratios.

log alpha = log(sigma^2 / mu^2) = -2 log(|mu| / sigma), so that a threshold on log alpha is one on the signal-to-noise
ratio |mu| / sigma.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnn_lightning.core.conversion import to_plain
from bnn_lightning.core.posteriors import LOG_ALPHA_THRESHOLD, Point
from bnn_lightning.core.whole_network import random_tensors


@dataclass(frozen=True)
class LayerSparsity:
    """How many weights of a layer are kept. Biases are always kept, and not counted.

    Args:
        layer: its name in the network.
        weights: number of its weights.
        kept: number of those that are kept.
        median_log_alpha: of all its weights.
    """

    layer: str
    weights: int
    kept: int
    median_log_alpha: float

    @property
    def sparsity(self) -> float:
        """The fraction of the weights that is removed, from 0 to 1."""
        return 1 - self.kept / self.weights


def weight_log_alphas(net: nn.Module) -> dict[str, Tensor]:
    """Log alpha of every random weight, by the names of ``random_tensors`` such as ``conv1.weight``.

    Without biases and other vectors, such as the scales of norm layers.
    """
    with torch.no_grad():
        return {
            name: posterior.log_alpha()
            for name, posterior in random_tensors(net)
            if posterior.mean.dim() > 1 and not isinstance(posterior, Point)
        }


def flat(log_alphas: Mapping[str, Tensor]) -> Tensor:
    """All values that :func:`weight_log_alphas` gives, ``(weights,)``.

    Raises:
        ValueError: when there are none.
    """
    if not log_alphas:
        raise ValueError("net must have random weights, got none of two axes or more: vectors are never removed.")
    return torch.cat([values.flatten() for values in log_alphas.values()])


def masks(net: nn.Module, threshold: float = LOG_ALPHA_THRESHOLD) -> dict[str, Tensor]:
    """Boolean masks over the weights by name, true where a weight is kept: log alpha is below ``threshold``."""
    return {name: log_alphas < threshold for name, log_alphas in weight_log_alphas(net).items()}


def masks_removing(net: nn.Module, removed: float) -> dict[str, Tensor]:
    """Masks that remove a share of all random weights: those of lowest |mu| / sigma in the whole network.

    Blundell et al. 2015 (arXiv:1505.05424), section 5.1.

    Args:
        net: a network with random layers.
        removed: the share, from 0 to 1.

    Raises:
        ValueError: when ``removed`` is not from 0 to 1, or ``net`` has no random weight.
    """
    if not 0 <= removed <= 1:
        raise ValueError(f"removed must be a share of the weights from 0 to 1, got {removed}.")
    log_alphas = weight_log_alphas(net)
    all_log_alphas = flat(log_alphas)
    kept = torch.zeros(len(all_log_alphas), dtype=torch.bool, device=all_log_alphas.device)
    # By rank and not by a quantile, so that the share is exact also where many weights have the same log alpha.
    kept[all_log_alphas.argsort(stable=True)[: len(all_log_alphas) - round(removed * len(all_log_alphas))]] = True
    flat_masks = kept.split([values.numel() for values in log_alphas.values()])
    return {name: mask.view(values.shape) for (name, values), mask in zip(log_alphas.items(), flat_masks, strict=True)}


def sparsity_by_layer(net: nn.Module, keep: Mapping[str, Tensor]) -> list[LayerSparsity]:
    """The sparsity of each random layer under the masks ``keep``, in the network's order."""
    return [
        LayerSparsity(
            layer=name.removesuffix(".weight"),
            weights=keep[name].numel(),
            kept=int(keep[name].sum()),
            median_log_alpha=log_alphas.median().item(),
        )
        for name, log_alphas in weight_log_alphas(net).items()
    ]


def overall_sparsity(net: nn.Module, threshold: float = LOG_ALPHA_THRESHOLD) -> float:
    """The fraction of all random weights whose log alpha is not below ``threshold``, from 0 to 1; 0 of none."""
    kept = [mask.flatten() for mask in masks(net, threshold).values()]
    return 1 - torch.cat(kept).float().mean().item() if kept else 0.0


def compression_ratios(net: nn.Module, keep: Mapping[str, Tensor]) -> tuple[float, float]:
    """The number of weights divided by the number of kept weights: without biases, as in papers, and with biases.

    Biases and other vectors are all kept, as are the weights of layers that are not random. Infinite if nothing is
    kept.

    Args:
        net: a network with random layers.
        keep: masks over its weights, as :func:`masks` returns them.
    """
    weights = kept = biases = 0
    for name, parameter in to_plain(net).named_parameters():
        if parameter.dim() > 1:
            weights += parameter.numel()
            kept += int(keep[name].sum()) if name in keep else parameter.numel()
        else:
            biases += parameter.numel()
    return weights / kept if kept else math.inf, (weights + biases) / (kept + biases) if kept + biases else math.inf
