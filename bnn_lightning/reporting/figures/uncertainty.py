"""Figures of uncertainty: by class, by set of images, for a rotated image; reliability, risk against coverage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bnn_lightning.likelihoods.categorical.classes import wilson_intervals
from bnn_lightning.likelihoods.categorical.predictive import (
    Transform,
    mutual_information,
    predictive_entropy,
    probabilities,
    variances,
)
from bnn_lightning.likelihoods.categorical.scores import BINS, risk_coverage
from bnn_lightning.reporting.figures.labels import as_drawn, short
from bnn_lightning.reporting.figures.png import save

_ALEATORIC, _EPISTEMIC, _PROBABILITY, _WRONG = "#e08a3c", "#3c6fb0", "#8a8a8a", "#b0413c"
_MANY = 100  # images in a bin, from which others would not be seen on a linear axis
ENTROPIES = {"entropy": "predictive entropy, nats", "mutual_information": "mutual information, nats"}


def class_uncertainty(path: Path, images: Sequence[tuple[str, Tensor, Tensor]], classes: Sequence[str]) -> None:
    """Draws probability, aleatoric and epistemic variance of every class, by both methods, for a few images.

    Args:
        path: the PNG to write.
        images: for each image its caption, pixels ``(channels, height, width)`` and logits ``(samples, classes)``.
        classes: their names.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    figure = Figure(figsize=(11, 2.6 * len(images) + 0.5), layout="constrained")
    axes = figure.subplots(len(images), 3, width_ratios=(0.75, 2, 2), squeeze=False)
    positions = torch.arange(len(classes))
    for row, (caption, pixels, logits) in zip(axes, images, strict=True):
        _draw_image(row[0], pixels)
        row[0].set_title("\n".join(short(line, 30) for line in caption.split("\n")), fontsize=9)
        for axis, transform in zip(row[1:], get_args(Transform), strict=True):
            variance = variances(logits.unsqueeze(1), transform)
            mean = probabilities(logits.unsqueeze(1), transform).mean(0).squeeze(0)
            bars = [
                ("probability", mean, _PROBABILITY),
                ("aleatoric variance", variance.aleatoric.squeeze(0), _ALEATORIC),
                ("epistemic variance", variance.epistemic.squeeze(0), _EPISTEMIC),
            ]
            for number, (label, values, colour) in enumerate(bars):
                axis.bar(positions + 0.28 * (number - 1), values, 0.26, color=colour, label=label)
            axis.set_xticks(positions, [short(name) for name in classes], fontsize=8, rotation=_tick_angle(classes))
            axis.set(yscale="log", ylim=(1e-6, 1.5))  # epistemic variances are much smaller than aleatoric ones
            traces = [part.sum().item() for part in variance]
            axis.set_title(f"{transform}: aleatoric trace {traces[0]:.3g}, epistemic {traces[1]:.2g}", fontsize=9)
    handles, names = axes[0][1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    save(figure, path)


def score_histograms(
    path: Path,
    test_set: tuple[str, Mapping[str, Tensor]],
    ood_sets: Mapping[str, Any],
    labels: Mapping[str, str] = ENTROPIES,
) -> None:
    """Draws histograms of the test images' scores against those of each out-of-distribution set.

    Args:
        path: the PNG to write.
        test_set: its name and its scores, each ``(images,)``.
        ood_sets: the scores of each out-of-distribution set, by name.
        labels: the scores to draw, with what is written at their axes; one that is 0 everywhere is left out.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    name, test_scores = test_set
    # Mutual information and epistemic parts are 0 when there is only one sample.
    labels = {score: label for score, label in labels.items() if test_scores[score].max() > 0}
    figure = Figure(figsize=(5 * len(labels), 2.8 * len(ood_sets) + 0.3), layout="constrained")
    axes = figure.subplots(len(ood_sets), len(labels), squeeze=False)
    for row, (ood_name, ood_scores) in zip(axes, ood_sets.items(), strict=True):
        for axis, (score, label) in zip(row, labels.items(), strict=True):
            inside, outside = test_scores[score], ood_scores[score]
            highest = max(inside.max().item(), outside.max().item(), 1e-6)
            for set_name, values, colour in ((name, inside, _EPISTEMIC), (ood_name, outside, _ALEATORIC)):
                share = torch.full_like(values, 1 / len(values))
                axis.hist(
                    values, 50, range=(0, highest), weights=share, color=colour, alpha=0.6, label=as_drawn(set_name)
                )
            axis.set_yscale("log")
            axis.set_xlabel(label)
            axis.set_ylabel("share of images")
        row[0].legend(frameon=False)
    save(figure, path)


def reliability(path: Path, predictives: Mapping[str, Tensor], labels: Tensor) -> None:
    """Draws a reliability diagram: accuracy against confidence in 15 bins, and the number of images in each bin.

    Args:
        path: the PNG to write.
        predictives: log-probabilities ``(images, classes)`` by name, such as before and after temperature scaling.
        labels: ``(images,)``.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    figure = Figure(figsize=(5.2 * len(predictives), 4.6), layout="constrained")
    axes = figure.subplots(2, len(predictives), height_ratios=(3, 1), squeeze=False, sharex=True)
    edges = torch.linspace(0, 1, BINS + 1)
    for column, (name, log_probs) in enumerate(predictives.items()):
        top, bottom = axes[0][column], axes[1][column]
        log_confidence, predicted = log_probs.max(-1)
        confidence, correct = log_confidence.exp().float(), (predicted == labels).float()
        bins = torch.bucketize(confidence, edges[1:-1])
        count = bins.bincount(minlength=BINS)
        filled = count > 0
        right = bins.bincount(correct, BINS)[filled]
        accuracy = right / count[filled]
        mean_confidence = bins.bincount(confidence, BINS)[filled] / count[filled]
        top.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="calibrated")
        low, high = wilson_intervals(right, count[filled])
        # Where all or none are right an end is the accuracy itself, but for rounding.
        bars = torch.stack([accuracy - low, high - accuracy]).clamp_min(0)
        label = "measured, with 95 % intervals"
        top.errorbar(mean_confidence, accuracy, bars, marker="o", color=_EPISTEMIC, capsize=2, label=label)
        top.set(title=as_drawn(name), ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        bottom.bar(edges[:-1] + 0.5 / BINS, count, 0.9 / BINS, color=_PROBABILITY)
        if count.max() > _MANY:
            bottom.set_yscale("log")
            bottom.set_ylim(bottom=0.5)  # so that a bin of one image has a bar, as tall in every panel
        else:
            bottom.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        bottom.set(xlabel="confidence", ylabel="images")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    save(figure, path)


def risk_coverage_curve(path: Path, predictives: Mapping[str, Tensor], labels: Tensor) -> None:
    """Draws the error rate of the accepted predictions against their share, the most confident accepted first.

    Args:
        path: the PNG to write.
        predictives: log-probabilities ``(images, classes)`` by name, such as "mean weights".
        labels: ``(images,)``.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.add_subplot()
    for name, log_probs in predictives.items():
        log_confidence, predicted = log_probs.max(-1)
        coverage, risk = risk_coverage(log_confidence, predicted == labels)
        axis.plot(100 * coverage, 100 * risk, label=as_drawn(f"{name} (AURC {risk.mean():.2e})"))
    axis.set(xlabel="coverage: predictions accepted, %", ylabel="risk: errors among them, %", xlim=(0, 100))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=9)
    save(figure, path)


def rotated_image(path: Path, angles: Sequence[float], pixels: Tensor, logits: Tensor, classes: Sequence[str]) -> None:
    """Draws the class probabilities and the uncertainty of an image as it is rotated.

    Args:
        path: the PNG to write.
        angles: in degrees.
        pixels: ``(angles, channels, height, width)``.
        logits: ``(samples, angles, classes)``.
        classes: their names.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    grid = figure.add_gridspec(3, len(angles), height_ratios=(1, 3, 2))
    for column, (angle, image) in enumerate(zip(angles, pixels, strict=True)):
        axis = figure.add_subplot(grid[0, column])
        _draw_image(axis, image)
        axis.set_title(f"{angle:g}°", fontsize=8)
    top, bottom = figure.add_subplot(grid[1, :]), figure.add_subplot(grid[2, :])
    probs = probabilities(logits)
    mean, spread = probs.mean(0), probs.std(0, correction=0)
    lines, names = [], []
    for label in mean.amax(0).topk(min(4, len(classes))).indices.sort().values.tolist():
        line = top.plot(angles, mean[:, label], marker="o", markersize=3)[0]
        lines.append(line)
        names.append(short(classes[label]))
        low, high = mean[:, label] - spread[:, label], mean[:, label] + spread[:, label]
        top.fill_between(angles, low.clamp_min(0), high.clamp_max(1), color=line.get_color(), alpha=0.15)
    top.set(ylabel="probability", ylim=(0, 1.02), xticklabels=[])
    # Given with their lines, names that begin with an underscore are shown too. Curves may be anywhere in their axes.
    style: dict[str, Any] = {"ncols": 4, "frameon": False, "fontsize": 8}
    title = "class (band: std over draws)"
    figure.legend(lines, names, title=title, title_fontsize=8, loc="outside upper center", **style)
    total, epistemic = predictive_entropy(logits), mutual_information(logits)
    bottom.plot(angles, total, marker="o", markersize=3, color="black", label="predictive entropy")
    bottom.plot(angles, epistemic, marker="o", markersize=3, color=_EPISTEMIC, label="mutual information")
    bottom.set(xlabel="turned by, degrees", ylabel="nats")
    bottom.set_ylim(bottom=0)
    figure.legend(handles=bottom.get_lines(), loc="outside lower center", **style)
    save(figure, path)


def most_and_least_certain(path: Path, results: Mapping[str, Tensor], pixels: Tensor, classes: Sequence[str]) -> None:
    """Draws ten images of highest and ten of lowest entropy, with predicted class, its probability, a differing label.

    Args:
        path: the PNG to write.
        results: ``entropy`` ``(images,)``, ``log_probs`` ``(images, classes)`` and ``labels``, -1 if unknown.
        pixels: ``(images, channels, height, width)``, uint8.
        classes: their names.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    order = results["entropy"].argsort(descending=True, stable=True)
    count = min(10, len(order))
    figure = Figure(figsize=(1.15 * count + 0.4, 4.0), layout="constrained")
    rows: Any = figure.subfigures(2, 1)
    titles = ("highest predictive entropy", "lowest predictive entropy")
    for row, title, indices in zip(rows, titles, (order[:count], order.flip(0)[:count]), strict=True):
        row.suptitle(title, fontsize=10)
        for axis, index in zip(row.subplots(1, count, squeeze=False)[0], indices.tolist(), strict=True):
            _draw_image(axis, pixels[index])
            log_confidence, predicted = results["log_probs"][index].max(-1)
            label = int(results["labels"][index])
            correct = label == int(predicted)
            text = f"{short(classes[int(predicted)])}: {100 * log_confidence.exp():.0f} %"
            text += "" if correct or label < 0 else f"\nis {short(classes[label])}"
            text += f"\nH {results['entropy'][index]:.2g}"
            axis.set_xlabel(text, fontsize=8, color="black" if correct else _WRONG)
    save(figure, path)


def _draw_image(axis: Any, pixels: Tensor) -> None:
    image = pixels.permute(1, 2, 0).squeeze(-1).cpu()
    axis.imshow(image, cmap="gray" if image.dim() == 2 else None, vmin=0, vmax=255)
    axis.set(xticks=[], yticks=[])


def _tick_angle(classes: Sequence[str]) -> int:
    return 40 if max(len(short(name)) for name in classes) > 3 else 0
