"""Figures of predicted numbers: against the truth, residuals, the calibration curve, intervals over one feature."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bnn_lightning.likelihoods.regression.mixture import Mixture
from bnn_lightning.likelihoods.regression.scores import CURVE_LEVELS, calibration_curve
from bnn_lightning.reporting.figures.labels import as_drawn, short
from bnn_lightning.reporting.figures.png import save

_ALEATORIC, _EPISTEMIC, _MISSED = "#e08a3c", "#3c6fb0", "#b0413c"
_MOST_BARS = 400  # examples that are drawn with bars, evenly over the test set; more would be a black cloud
_COVERAGE = 0.9


def predicted_and_true(path: Path, mixture: Mixture, y: Tensor, names: Sequence[str]) -> None:
    """Draws the truth against the predictive mean, with 90 % intervals; red where the truth is outside.

    Args:
        path: the PNG to write.
        mixture: predictives of the test examples, in float64.
        y: the truth, ``(examples, targets)``.
        names: of the targets.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    chosen = _some(len(y))
    part, truth = mixture[chosen], y[chosen]
    mean, (low, high) = part.mean(), part.interval(_COVERAGE)
    figure = Figure(figsize=(4.8 * len(names), 4.6), layout="constrained")
    for target, (axis, name) in enumerate(zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True)):
        is_inside = (low <= truth)[:, target] & (truth <= high)[:, target]
        for inside, colour, label in ((is_inside, _EPISTEMIC, "inside"), (~is_inside, _MISSED, "outside")):
            values = mean[inside, target]
            bars = torch.stack([values - low[inside, target], high[inside, target] - values])
            axis.errorbar(
                truth[inside, target], values, bars, fmt="o", ms=3, lw=0.7, alpha=0.6, color=colour,
                label=f"{label} the 90 % interval ({100 * len(values) / len(truth):.0f} %)",
            )  # fmt: skip
        ends = [truth[:, target].min().item(), truth[:, target].max().item()]
        axis.plot(ends, ends, color="grey", linewidth=1, linestyle="--")
        axis.set(xlabel=f"true {as_drawn(short(name))}", ylabel="predicted")
        axis.legend(frameon=False, fontsize=8)
    save(figure, path)


def residuals(path: Path, mixture: Mixture, y: Tensor, names: Sequence[str]) -> None:
    """Draws (truth - mean) / std over the predictive mean, and its histogram beside the standard normal density.

    Arguments are those of :func:`predicted_and_true`.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    z, mean = (y - mixture.mean()) / mixture.std(), mixture.mean()
    figure = Figure(figsize=(8.6, 3.4 * len(names)), layout="constrained")
    grid = torch.linspace(-4, 4, 200)
    density = torch.exp(-grid.square() / 2) / (2 * torch.pi) ** 0.5
    for target, (row, name) in enumerate(zip(figure.subplots(len(names), 2, squeeze=False), names, strict=True)):
        chosen = _some(len(z), 5000)
        row[0].scatter(mean[chosen, target], z[chosen, target], s=5, alpha=0.5, color=_EPISTEMIC)
        row[0].axhline(0, color="grey", linewidth=1)
        row[0].set(xlabel=f"predicted {as_drawn(short(name))}", ylabel="(truth - mean) / std")
        row[1].hist(z[:, target].clamp(-4, 4), 41, range=(-4, 4), density=True, color=_EPISTEMIC, alpha=0.6)
        row[1].plot(grid, density, color="grey", label="standard normal")
        row[1].set(xlabel="(truth - mean) / std", ylabel="density")
        row[1].legend(frameon=False, fontsize=8)
    save(figure, path)


def quantile_calibration(path: Path, pits: Mapping[str, Tensor]) -> None:
    """Draws for each level the share of targets below the predicted quantile of that level.

    Args:
        path: the PNG to write.
        pits: by name, such as before and after calibration, P(Y <= y) of each target, ``(examples, targets)``.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    figure = Figure(figsize=(4.8, 4.6), layout="constrained")
    axis = figure.add_subplot()
    axis.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="calibrated")
    for name, pit in pits.items():
        shares = calibration_curve(pit).mean(1)
        gap = (shares - CURVE_LEVELS).abs().mean().item()
        axis.plot(CURVE_LEVELS, shares, marker="o", ms=4, label=as_drawn(f"{name} (mean gap {gap:.3f})"))
    axis.set(xlabel="level of the predicted quantile", ylabel="share of targets below it", xlim=(0, 1), ylim=(0, 1))
    axis.legend(frameon=False, fontsize=8)
    save(figure, path)


def intervals_over_feature(
    path: Path, points: tuple[Tensor, Tensor], curve: tuple[Tensor, Mixture] | None, names: tuple[str, str], bars: Any
) -> None:
    """Draws the truth over one feature, with what is predicted: a band where there is a curve, else bars.

    The band is two standard deviations wide on each side: the inner part the epistemic one alone, the outer both.

    Args:
        path: the PNG to write.
        points: feature and truth of the test examples, ``(examples,)`` each.
        curve: values of the feature, rising, and the predictives there; None where there are other features too.
        names: of the feature and of the target.
        bars: the predictives of the test examples, drawn where there is no curve.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axis = figure.add_subplot()
    feature, truth = points
    if curve is not None:
        x, mixture = curve
        mean, total = mixture.mean()[:, 0], mixture.std()[:, 0]
        epistemic = mixture.variances()[1][:, 0].sqrt()
        axis.fill_between(x, mean - 2 * total, mean + 2 * total, color=_ALEATORIC, alpha=0.3, lw=0, label="2 std")
        axis.fill_between(
            x, mean - 2 * epistemic, mean + 2 * epistemic, color=_EPISTEMIC, alpha=0.4, lw=0, label="2 epistemic std"
        )
        axis.plot(x, mean, color=_EPISTEMIC, label="mean")
        axis.scatter(feature, truth, s=6, color="black", label="truth", zorder=3)
    else:
        chosen = _some(len(feature))
        part = bars[chosen]
        mean, (low, high) = part.mean()[:, 0], (end[:, 0] for end in part.interval(_COVERAGE))
        axis.errorbar(
            feature[chosen], mean, torch.stack([mean - low, high - mean]), fmt="o", ms=3, lw=0.7, alpha=0.5,
            color=_EPISTEMIC, label="mean and 90 % interval",
        )  # fmt: skip
        axis.scatter(feature[chosen], truth[chosen], s=6, color="black", label="truth", zorder=3)
    axis.set(xlabel=as_drawn(short(names[0])), ylabel=as_drawn(short(names[1])))
    axis.legend(frameon=False, fontsize=8)
    save(figure, path)


def _some(count: int, most: int = _MOST_BARS) -> Tensor:
    """Indices of at most ``most`` of ``count`` examples, evenly spaced."""
    return torch.arange(count) if count <= most else torch.linspace(0, count - 1, most).long()
