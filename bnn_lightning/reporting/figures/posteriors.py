"""Figures of a posterior: each layer's weights against their prior, and the first layer's filters."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from matplotlib.figure import Figure

from bnn_lightning.core.priors import Normal
from bnn_lightning.reporting.figures.labels import as_drawn


def posterior_and_prior(named: Iterable[tuple[str, Any]]) -> Figure | None:
    """Draws densities for each weight tensor: one posterior sample, the means, and the prior if it is normal.

    Those of recurrent and attention layers are called ``weight_ih_l0``, ``in_proj_weight`` and so on. Returns None
    where there are none.

    Args:
        named: names and posteriors, as :func:`bnn_lightning.core.whole_network.random_tensors` yields them.
    """
    weights = [(name, posterior) for name, posterior in named if "weight" in name.rpartition(".")[2]]
    if not weights:
        return None
    with torch.random.fork_rng([]):
        samples = [posterior.sample().detach().float().flatten().cpu() for _, posterior in weights]
    columns = min(3, len(weights))
    rows = math.ceil(len(weights) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (name, posterior), sample in zip(axes, weights, samples, strict=False):
        mean = posterior.mean.detach().float().flatten().cpu()
        sigma = posterior.variance.detach().float().expand_as(posterior.mean).flatten().cpu().sqrt()
        limit = 1.2 * max(mean.abs().max().item(), 3 * sigma.median().item(), 1e-6)
        axis.hist(
            sample,
            80,
            range=(-limit, limit),
            density=True,
            color="#3c6fb0",
            alpha=0.5,
            label="posterior, one draw",
            histtype="stepfilled",
        )
        axis.hist(mean, 80, range=(-limit, limit), density=True, color="black", histtype="step", label="means")
        prior = getattr(posterior, "prior", None)
        if isinstance(prior, Normal) and torch.as_tensor(prior.mu).numel() == 1:
            x = torch.linspace(-limit, limit, 200)
            same_everywhere = Normal(float(prior.mu), float(prior.sigma))
            axis.plot(x, same_everywhere.log_prob(x).exp(), color="#e08a3c", label="prior")
        axis.set_title(as_drawn(f"{name}: median sigma {sigma.median():.2g}"), fontsize=9)
        axis.set_yticks([])
    for axis in axes[len(weights) :]:
        axis.axis("off")
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def first_layer_filters(name: str, weight: Any) -> Figure | None:
    """Draws mean and sigma of every filter of a convolution; returns None for other layers.

    Args:
        name: of the layer's weight.
        weight: the posterior of a weight ``(out, in, height, width)``; the figure shows the mean over input channels.
    """
    if weight.mean.dim() != 4:
        return None
    mean = weight.mean.detach().float().mean(1).cpu()
    sigma = weight.variance.detach().float().expand_as(weight.mean).sqrt().mean(1).cpu()
    columns = min(16, len(mean))
    rows = math.ceil(len(mean) / columns)
    figure = Figure(figsize=(0.75 * columns + 1.5, 0.85 * rows * 2 + 0.9), layout="constrained")
    halves: Any = figure.subfigures(2, 1)
    for part, (title, filters, limits, colours) in zip(
        halves,
        (
            ("mean", mean, (-mean.abs().max().item(), mean.abs().max().item()), "RdBu_r"),
            ("sigma", sigma, (0.0, sigma.max().item()), "viridis"),
        ),
        strict=True,
    ):
        axes = part.subplots(rows, columns, squeeze=False).flatten()
        part.suptitle(as_drawn(f"{name}: {title} of each filter"), fontsize=9)
        low, high = limits
        for axis, values in zip(axes, filters, strict=False):
            heatmap = axis.imshow(values, cmap=colours, vmin=low, vmax=high)
        for axis in axes:
            axis.axis("off")
        part.colorbar(heatmap, ax=list(axes), shrink=0.9)
    return figure
