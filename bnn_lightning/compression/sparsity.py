"""Which weights carry no signal: masks by log alpha or by signal-to-noise, the report by layer, the compression ratio.

log alpha = log(sigma^2 / mu^2) = -2 log(|mu| / sigma): a threshold on one is a threshold on the other.
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
    """What is left of a layer's weights; biases are all kept and not counted."""

    layer: str
    weights: int
    kept: int
    median_log_alpha: float

    @property
    def sparsity(self) -> float:
        """The share of its weights that is removed, from 0 to 1."""
        return 1 - self.kept / self.weights


def weight_log_alphas(net: nn.Module) -> dict[str, Tensor]:
    """Log alpha of every weight (biases left out) of the random layers, by posterior name such as ``conv1.weight``."""
    with torch.no_grad():
        return {
            name: posterior.log_alpha()
            for name, posterior in random_tensors(net)
            if name.split(".")[-1] == "weight" and not isinstance(posterior, Point)
        }


def masks(net: nn.Module, threshold: float = LOG_ALPHA_THRESHOLD) -> dict[str, Tensor]:
    """True where a weight is kept: where its log alpha is below ``threshold``."""
    return {name: values < threshold for name, values in weight_log_alphas(net).items()}


def masks_without(net: nn.Module, removed: float) -> dict[str, Tensor]:
    """Masks that remove this share of all weights, those of lowest |mu| / sigma in the whole network first.

    Blundell et al. 2015 (arXiv:1505.05424), section 5.1.

    Raises:
        ValueError: unless ``removed`` is from 0 to 1.
    """
    if not 0 <= removed <= 1:
        raise ValueError(f"removed must be a share of the weights from 0 to 1, got {removed}.")
    values = weight_log_alphas(net)
    every = torch.cat([value.flatten() for value in values.values()])
    kept = torch.zeros(len(every), dtype=torch.bool, device=every.device)
    # By rank and not by a quantile: however many are equal, the share is what was asked for.
    kept[every.argsort(stable=True)[: len(every) - round(removed * len(every))]] = True
    parts = kept.split([value.numel() for value in values.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(values.items(), parts, strict=True)}


def by_layer(net: nn.Module, keep: Mapping[str, Tensor]) -> list[LayerSparsity]:
    """The report of each random layer under ``keep``, in the network's order."""
    return [
        LayerSparsity(
            layer=name.removesuffix(".weight"),
            weights=keep[name].numel(),
            kept=int(keep[name].sum()),
            median_log_alpha=values.median().item(),
        )
        for name, values in weight_log_alphas(net).items()
    ]


def overall_sparsity(net: nn.Module, threshold: float = LOG_ALPHA_THRESHOLD) -> float:
    """The share of all weights of random layers that is removed at ``threshold``, from 0 to 1."""
    every = torch.cat([mask.flatten() for mask in masks(net, threshold).values()])
    return 1 - every.float().mean().item()


def compression(net: nn.Module, keep: Mapping[str, Tensor]) -> tuple[float, float]:
    """All weights over those that are kept: with biases left out, as papers count, and with them counted on both sides.

    Weights of layers that are not random are all kept. Infinite where nothing is kept.
    """
    weights = kept = biases = 0
    for name, parameter in to_plain(net).named_parameters():
        if parameter.dim() > 1:
            weights += parameter.numel()
            kept += int(keep[name].sum()) if name in keep else parameter.numel()
        else:
            biases += parameter.numel()
    return weights / kept if kept else math.inf, (weights + biases) / (kept + biases) if kept + biases else math.inf
